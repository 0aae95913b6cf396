/*
 * A UDP socket for a server, on Linux. Node makes an object, a call and a system call for each datagram that it takes or
 * sends, and that is most of what a GET costs a server. Here it is a handful of datagrams for each: `udp-batch.c`. Addresses
 * are struct sockaddr as the system has them; TypeScript keeps them.
 */
#include "udp.h"
#ifdef __linux__
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const napi_type_tag UDP = {0x8d2f6a5b1c3e4970ULL, 0xa4b07c19e2d85f36ULL};
#define TEXT_MAX (INET6_ADDRSTRLEN + IF_NAMESIZE + 1)

static int get_text(napi_env env, napi_value value, char *text, size_t room) {
  size_t length = 0;
  return napi_get_value_string_utf8(env, value, text, room, &length) == napi_ok && length + 1 < room;
}

napi_value number(napi_env env, int32_t value) {
  napi_value result;
  return napi_create_int32(env, value, &result) == napi_ok ? result : NULL;
}

/* `fe80::1%eth0`, `fe80::1%2`; an IPv4 address by way of a socket for both. 0 for what is no numeric address. */
static socklen_t parse(const char *text, int v6, int port, struct sockaddr_storage *address) {
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
  struct sockaddr_in *four = (struct sockaddr_in *)address;
  char bare[TEXT_MAX];
  memset(address, 0, sizeof *address);
  if (!v6) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, text, &four->sin_addr) == 1 ? sizeof *four : 0;
  }
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)port);
  const char *zone = strchr(text, '%');
  snprintf(bare, sizeof bare, "%.*s", zone == NULL ? (int)strlen(text) : (int)(zone - text), text);
  if (inet_pton(AF_INET6, bare, &six->sin6_addr) == 1) {
    if (zone == NULL) return sizeof *six;
    char *end;
    unsigned long number = strtoul(zone + 1, &end, 10);
    six->sin6_scope_id = if_nametoindex(zone + 1);
    if (six->sin6_scope_id == 0 && end != zone + 1 && *end == 0 && number <= UINT32_MAX) six->sin6_scope_id = (uint32_t)number;
    return six->sin6_scope_id == 0 ? 0 : sizeof *six;
  }
  if (inet_pton(AF_INET, text, &six->sin6_addr.s6_addr[12]) != 1) return 0;
  six->sin6_addr.s6_addr[10] = six->sin6_addr.s6_addr[11] = 0xff;
  return sizeof *six;
}

/* socketAddress(text, v6) → Buffer with port 0, or undefined for what is no numeric address */
napi_value socket_address(napi_env env, napi_callback_info info) {
  napi_value arguments[2], buffer = NULL;
  size_t count = 2;
  char text[TEXT_MAX];
  bool v6 = false;
  struct sockaddr_storage address;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || !get_text(env, arguments[0], text, sizeof text))
    return NULL;
  napi_get_value_bool(env, arguments[1], &v6);
  socklen_t length = parse(text, v6, 0, &address);
  if (length == 0 || napi_create_buffer_copy(env, length, &address, NULL, &buffer) != napi_ok) return NULL;
  return buffer;
}

/* addressText(octets of a struct sockaddr) → as Node writes it: with a zone where the address is of one link */
napi_value address_text(napi_env env, napi_callback_info info) {
  napi_value argument, text = NULL;
  size_t count = 1, length;
  const unsigned char *data;
  struct sockaddr_storage address;
  char name[TEXT_MAX], zone[IF_NAMESIZE];
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok || !get_octets(env, argument, &data, &length) ||
      length > ADDRESS_MAX)
    return NULL;
  memset(&address, 0, sizeof address);
  memcpy(&address, data, length);
  const struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address;
  if (address.ss_family == AF_INET6 && length == sizeof *six) {
    if (inet_ntop(AF_INET6, &six->sin6_addr, name, sizeof name) == NULL) return NULL;
    if (six->sin6_scope_id != 0 && IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr)) {
      size_t end = strlen(name);
      if (if_indextoname(six->sin6_scope_id, zone) != NULL) snprintf(name + end, sizeof name - end, "%%%s", zone);
      else snprintf(name + end, sizeof name - end, "%%%u", six->sin6_scope_id);
    }
  } else if (address.ss_family != AF_INET || length != sizeof(struct sockaddr_in) ||
             inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, name, sizeof name) == NULL) {
    return NULL;
  }
  return napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text) == napi_ok ? text : NULL;
}

/* The object of JavaScript is gone. It cannot go while the socket is read: the callback holds on to it. */
static void finalize(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  struct udp *udp = data;
  if (udp->fd >= 0 && udp->poll == NULL) close(udp->fd);
  release_udp(udp);
}

struct udp *udp_of(napi_env env, napi_value value) {
  return unwrap(env, value, &UDP);
}

/*
 * A socket for every address of the host is told at which one a datagram arrived, so that the answer comes from there: the
 * system would take the one that it likes best, and who asked another waits in vain. It hears no groups: what is sent to
 * them has sockets of its own, while the system hands to this one what any program of the host has joined. To be called
 * before the socket is bound: what comes earlier than this is not told, and IPv4 then looks like a broadcast.
 */
static int listen_everywhere(int fd, int v6, const struct sockaddr_storage *address) {
  const int on = 1, off = 0;
  const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
  if (v6 ? !IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr) : ((const struct sockaddr_in *)address)->sin_addr.s_addr != INADDR_ANY)
    return 0;
  /* an old kernel may not know these; what came to a group is left out when it is read, too */
  setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off);
#ifdef IPV6_MULTICAST_ALL
  if (v6) setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off, sizeof off);
#endif
  /* IPv4's own words, by which a broadcast is known, come beside those of IPv6 on a socket for both */
  int told = setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  return v6 ? setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on) : told;
}

/* openUdp(address, v6, port, share, spread) → a bound socket, or −errno. `share`: SO_REUSEADDR, `spread`: SO_REUSEPORT */
napi_value open_udp(napi_env env, napi_callback_info info) {
  napi_value arguments[5], result;
  size_t count = 5;
  char text[TEXT_MAX];
  bool v6 = false, share = false, spread = false;
  int32_t port = 0;
  const int on = 1, off = 0;
  struct sockaddr_storage address;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || !get_text(env, arguments[0], text, sizeof text))
    return NULL;
  napi_get_value_bool(env, arguments[1], &v6);
  napi_get_value_int32(env, arguments[2], &port);
  napi_get_value_bool(env, arguments[3], &share);
  napi_get_value_bool(env, arguments[4], &spread);
  socklen_t length = parse(text, v6, port, &address);
  if (length == 0) return number(env, -EINVAL);
  struct udp *udp = calloc(1, sizeof *udp);
  if (udp == NULL) return number(env, -ENOMEM);
  udp->users = 1;
  udp->v6 = v6;
  udp->fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (udp->fd < 0 || (v6 && setsockopt(udp->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) ||
      (share && setsockopt(udp->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) ||
      (spread && setsockopt(udp->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
      listen_everywhere(udp->fd, v6, &address) != 0 || bind(udp->fd, (struct sockaddr *)&address, length) != 0) {
    int fault = errno;
    if (udp->fd >= 0) close(udp->fd);
    free(udp);
    return number(env, -fault);
  }
  result = wrap(env, udp, &UDP, finalize);
  if (result == NULL) {
    close(udp->fd);
    free(udp);
  }
  return result;
}

/* udpAddress(socket) → octets of its struct sockaddr; undefined once it is closed */
napi_value udp_address(napi_env env, napi_callback_info info) {
  napi_value argument, buffer = NULL;
  size_t count = 1;
  struct udp *udp;
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok || (udp = udp_of(env, argument)) == NULL ||
      getsockname(udp->fd, (struct sockaddr *)&address, &length) != 0)
    return NULL;
  return napi_create_buffer_copy(env, length, &address, NULL, &buffer) == napi_ok ? buffer : NULL;
}

/* udpRoom(socket, octets) → 0 or −errno: how much may wait to be read */
napi_value udp_room(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  struct udp *udp;
  int32_t octets;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || (udp = udp_of(env, arguments[0])) == NULL ||
      napi_get_value_int32(env, arguments[1], &octets) != napi_ok)
    return NULL;
  return number(env, setsockopt(udp->fd, SOL_SOCKET, SO_RCVBUF, &octets, sizeof octets) == 0 ? 0 : -errno);
}
#endif
