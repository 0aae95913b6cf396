/* Datagrams by the handful: one system call and one call of JavaScript for all that wait, one system call for all answers. */
#include "udp.h"
#ifdef __linux__
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * What is used of libuv, in Node's own words: its headers are not everywhere where Node-API's are, and its ABI is the same
 * for all of libuv 1. `can_poll` looks whether this one is.
 */
typedef void (*poll_callback)(struct uv_poll_s *poll, int status, int events);
enum { READABLE = 1, WRITABLE = 2, POLL_HANDLE = 8 };
extern unsigned uv_version(void);
extern const char *uv_handle_type_name(int type);
extern size_t uv_handle_size(int type);
extern void *uv_handle_get_data(const struct uv_poll_s *handle);
extern void uv_handle_set_data(struct uv_poll_s *handle, void *data);
extern int uv_poll_init(struct uv_loop_s *loop, struct uv_poll_s *poll, int fd);
extern int uv_poll_start(struct uv_poll_s *poll, int events, poll_callback callback);
extern void uv_close(struct uv_poll_s *handle, void (*closed)(struct uv_poll_s *));

int can_poll(void) {
  const char *name = uv_version() >> 16 == 1 ? uv_handle_type_name(POLL_HANDLE) : NULL;
  return name != NULL && strcmp(name, "poll") == 0;
}

/* Of one system call; JavaScript's `space` has room for so many of the longest that there are. */
#define READ_AT_ONCE 16
#define LONGEST 65536
#define STRIDE (HEADER + LONGEST)
/* Then others have their turn. */
#define READS_A_TURN 4

void release_udp(struct udp *udp) {
  if (--udp->users == 0) free(udp);
}

/* Where `space` lies now: somebody may have given its memory to another thread, and that is freed there. */
static unsigned char *octets_of(struct udp *udp) {
  napi_handle_scope scope;
  napi_value space;
  const unsigned char *octets = NULL;
  size_t room = 0;
  if (napi_open_handle_scope(udp->env, &scope) != napi_ok) return NULL;
  if (napi_get_reference_value(udp->env, udp->space, &space) != napi_ok || !get_octets(udp->env, space, &octets, &room) ||
      room < READ_AT_ONCE * STRIDE)
    octets = NULL;
  napi_close_handle_scope(udp->env, scope);
  return (unsigned char *)octets;
}

/* Calls callback(count, octets). */
static void tell(struct udp *udp, int count, size_t octets) {
  napi_env env = udp->env;
  napi_handle_scope scope;
  napi_value arguments[2], function, global, error;
  if (udp->fd < 0 || napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_reference_value(env, udp->callback, &function) == napi_ok && napi_get_global(env, &global) == napi_ok &&
      napi_create_int32(env, count, &arguments[0]) == napi_ok &&
      napi_create_uint32(env, (uint32_t)octets, &arguments[1]) == napi_ok &&
      napi_make_callback(env, udp->context, global, function, 2, arguments, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error);
  napi_close_handle_scope(env, scope);
}

static void on_closed(struct uv_poll_s *poll) {
  struct udp *udp = uv_handle_get_data(poll);
  napi_async_cleanup_hook_handle cleanup = udp->cleanup;
  free(poll);
  napi_delete_reference(udp->env, udp->callback);
  napi_delete_reference(udp->env, udp->space);
  napi_async_destroy(udp->env, udp->context);
  release_udp(udp);
  /* the last: it may end the environment */
  if (cleanup != NULL) napi_remove_async_cleanup_hook(cleanup);
}

static void shut_udp(struct udp *udp) {
  if (udp->fd < 0) return;
  if (udp->poll != NULL) uv_close(udp->poll, on_closed);
  close(udp->fd);
  udp->fd = -1;
}

union control {
  struct cmsghdr header;
  unsigned char octets[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo))];
};

/*
 * Where a datagram arrived, in the form in which an answer is sent from there; nothing on a socket of one address. The
 * interface is left to the routes, but for an address of one link. Returns −1 for what was sent to a group or to everybody.
 */
static int own_address(unsigned char *own, struct msghdr *message, int v6) {
  int length = 0;
  for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one != NULL; one = CMSG_NXTHDR(message, one)) {
    if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(one), sizeof info);
      if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) return -1;
      if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) info.ipi6_ifindex = 0;
      memcpy(own, &info, length = sizeof info);
    }
    if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(one), sizeof info);
      if (info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr) return -1;
      info.ipi_ifindex = 0;
      if (!v6) memcpy(own, &info, length = sizeof info);
    }
  }
  return length;
}

/* What was read is moved together. Returns how many datagrams that makes, and in `end` how many octets. */
static int gather(unsigned char *octets, int v6, struct mmsghdr *messages, int count, size_t *end) {
  int taken = 0;
  *end = 0;
  for (int i = 0; i < count; i++) {
    struct msghdr *one = &messages[i].msg_hdr;
    size_t length = messages[i].msg_len, known = one->msg_namelen > ADDRESS_MAX ? ADDRESS_MAX : one->msg_namelen;
    unsigned char *to = octets + *end, own[OWN_MAX];
    int own_length = own_address(own, one, v6);
    if (own_length < 0) continue;
    memmove(to + HEADER, one->msg_iov->iov_base, length);
    memset(to, 0, LENGTH_AT);
    to[0] = (unsigned char)known;
    memcpy(to + 1, one->msg_name, known);
    to[OWN_AT] = (unsigned char)own_length;
    memcpy(to + OWN_AT + 1, own, (size_t)own_length);
    to[LENGTH_AT] = (unsigned char)(length >> 8);
    to[LENGTH_AT + 1] = (unsigned char)length;
    *end += HEADER + length;
    taken++;
  }
  return taken;
}

static void read_all(struct udp *udp) {
  struct sockaddr_storage from[READ_AT_ONCE];
  struct iovec parts[READ_AT_ONCE];
  struct mmsghdr messages[READ_AT_ONCE];
  union control controls[READ_AT_ONCE];
  size_t octets;
  for (int turn = 0; turn < READS_A_TURN && udp->fd >= 0; turn++) {
    unsigned char *space = octets_of(udp);
    if (space == NULL) {
      tell(udp, -EFAULT, 0);
      shut_udp(udp);
      return;
    }
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < READ_AT_ONCE; i++) {
      parts[i].iov_base = space + (size_t)i * STRIDE + HEADER;
      parts[i].iov_len = LONGEST - 1;
      messages[i].msg_hdr.msg_name = &from[i];
      messages[i].msg_hdr.msg_namelen = sizeof from[i];
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = &controls[i];
      messages[i].msg_hdr.msg_controllen = sizeof controls[i];
    }
    int count = recvmmsg(udp->fd, messages, READ_AT_ONCE, MSG_DONTWAIT, NULL);
    int taken = count > 0 ? gather(space, udp->v6, messages, count, &octets) : 0;
    if (taken > 0) tell(udp, taken, octets);
    else if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) tell(udp, -errno, 0);
    if (count < READ_AT_ONCE) return;
  }
}

static void on_ready(struct uv_poll_s *poll, int status, int events) {
  struct udp *udp = uv_handle_get_data(poll);
  if (status < 0) {
    /* libuv has stopped; reading the error of the socket clears it */
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(udp->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    uv_poll_start(poll, READABLE, on_ready);
    tell(udp, error != 0 ? -error : status, 0);
    return;
  }
  if (events & WRITABLE) {
    uv_poll_start(poll, READABLE, on_ready);
    tell(udp, 0, 0);
  }
  if (events & READABLE) read_all(udp);
}

/* The environment ends: a worker, or the process. */
static void on_cleanup(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  shut_udp(data);
}

/*
 * readUdp(socket, space, callback) → 0 or −errno. From now on the loop of events stays for the socket, and
 * callback(count, octets) is called: count > 0 datagrams lie in the first `octets` of `space`; 0: there is room again for
 * what is to be sent; < 0: −errno, and the socket goes on; −EFAULT: `space` has lost its memory, and the socket is closed.
 */
napi_value read_udp(napi_env env, napi_callback_info info) {
  napi_value arguments[3], name;
  size_t count = 3, room;
  const unsigned char *space;
  struct udp *udp;
  struct uv_loop_s *loop;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || (udp = udp_of(env, arguments[0])) == NULL ||
      !get_octets(env, arguments[1], &space, &room) || room < READ_AT_ONCE * STRIDE || udp->poll != NULL || udp->fd < 0 ||
      napi_get_uv_event_loop(env, &loop) != napi_ok)
    return NULL;
  struct uv_poll_s *poll = calloc(1, uv_handle_size(POLL_HANDLE));
  if (poll == NULL) return NULL;
  int fault = uv_poll_init(loop, poll, udp->fd);
  if (fault != 0) {
    free(poll);
    return number(env, fault);
  }
  uv_handle_set_data(poll, udp);
  udp->poll = poll;
  udp->env = env;
  udp->users++;
  if (napi_create_reference(env, arguments[2], 1, &udp->callback) != napi_ok ||
      napi_create_reference(env, arguments[1], 1, &udp->space) != napi_ok ||
      napi_create_string_utf8(env, "iotchain:udp", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_async_init(env, NULL, name, &udp->context) != napi_ok ||
      napi_add_async_cleanup_hook(env, on_cleanup, udp, &udp->cleanup) != napi_ok)
    fault = -ENOMEM;
  else
    fault = uv_poll_start(poll, READABLE, on_ready);
  if (fault != 0) shut_udp(udp);
  return number(env, fault);
}

/* awaitRoom(socket): callback(0, 0) as soon as the socket takes datagrams again */
napi_value await_room(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  struct udp *udp;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) == napi_ok && (udp = udp_of(env, argument)) != NULL &&
      udp->fd >= 0 && udp->poll != NULL)
    uv_poll_start(udp->poll, READABLE | WRITABLE, on_ready);
  return NULL;
}

/* closeUdp(socket): nothing is called after it */
napi_value close_udp(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  struct udp *udp;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) == napi_ok && (udp = udp_of(env, argument)) != NULL)
    shut_udp(udp);
  return NULL;
}

/* Says from which of our addresses a datagram is to leave. Returns 0 for what is no such address. */
static int set_own(struct msghdr *message, union control *control, int v6, const unsigned char *own) {
  size_t length = own[0], wanted = v6 ? sizeof(struct in6_pktinfo) : sizeof(struct in_pktinfo);
  if (length == 0) return 1;
  if (length != wanted) return 0;
  memset(control, 0, sizeof *control);
  message->msg_control = control;
  message->msg_controllen = CMSG_SPACE(length);
  control->header.cmsg_level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
  control->header.cmsg_type = v6 ? IPV6_PKTINFO : IP_PKTINFO;
  control->header.cmsg_len = CMSG_LEN(length);
  memcpy(CMSG_DATA(&control->header), own + 1, length);
  return 1;
}

/*
 * sendBatch(socket, octets, from, count) → how many of the datagrams that begin at `from` were taken; −errno if the first
 * was not: −EAGAIN when the socket is full.
 */
napi_value send_batch(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  size_t count = 4, length;
  const unsigned char *data;
  int32_t from, datagrams;
  struct udp *udp;
  struct iovec parts[BATCH];
  struct mmsghdr messages[BATCH];
  union control controls[BATCH];
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || (udp = udp_of(env, arguments[0])) == NULL ||
      !get_octets(env, arguments[1], &data, &length) || napi_get_value_int32(env, arguments[2], &from) != napi_ok ||
      napi_get_value_int32(env, arguments[3], &datagrams) != napi_ok)
    return NULL;
  if (from < 0 || datagrams < 0 || datagrams > BATCH) return NULL;
  size_t at = (size_t)from;
  memset(messages, 0, sizeof *messages * (size_t)datagrams);
  for (int i = 0; i < datagrams; i++) {
    if (length < HEADER || at > length - HEADER) return NULL;
    const unsigned char *item = data + at;
    size_t octets = (size_t)item[LENGTH_AT] << 8 | item[LENGTH_AT + 1];
    if (item[0] > ADDRESS_MAX || octets > length - HEADER - at ||
        !set_own(&messages[i].msg_hdr, &controls[i], udp->v6, item + OWN_AT))
      return NULL;
    parts[i].iov_base = (void *)(item + HEADER);
    parts[i].iov_len = octets;
    messages[i].msg_hdr.msg_name = (void *)(item + 1);
    messages[i].msg_hdr.msg_namelen = item[0];
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    at += HEADER + octets;
  }
  int sent;
  do sent = sendmmsg(udp->fd, messages, (unsigned)datagrams, MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return number(env, sent < 0 ? -errno : sent);
}
#endif
