/*
 * Datagrams by the handful, on Linux: Node makes an object, a call and a system call for each that it sends, and that is a
 * quarter of what a GET costs a server. Addresses are struct sockaddr as the system has them; TypeScript keeps them.
 */
#ifdef __linux__
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "dtls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64
/* Before each datagram: length of the address 1, address up to 28, length of the datagram 2 (big-endian). */
#define ADDRESS_MAX 28
#define HEADER (1 + ADDRESS_MAX + 2)

static int get_text(napi_env env, napi_value value, char *text, size_t room) {
  size_t length = 0;
  return napi_get_value_string_utf8(env, value, text, room, &length) == napi_ok && length + 1 < room;
}

static socklen_t parse(const char *text, int v6, int port, struct sockaddr_storage *address) {
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
  struct sockaddr_in *four = (struct sockaddr_in *)address;
  memset(address, 0, sizeof *address);
  if (!v6) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, text, &four->sin_addr) == 1 ? sizeof *four : 0;
  }
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)port);
  if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) return sizeof *six;
  /* an IPv4 address by way of a socket for both */
  if (inet_pton(AF_INET, text, &six->sin6_addr.s6_addr[12]) != 1) return 0;
  six->sin6_addr.s6_addr[10] = six->sin6_addr.s6_addr[11] = 0xff;
  return sizeof *six;
}

/* socketAddress(text, v6) → Buffer with port 0, or undefined for what is no numeric address without a zone */
napi_value socket_address(napi_env env, napi_callback_info info) {
  napi_value arguments[2], buffer = NULL;
  size_t count = 2;
  char text[64];
  bool v6 = false;
  struct sockaddr_storage address;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok || !get_text(env, arguments[0], text, sizeof text))
    return NULL;
  napi_get_value_bool(env, arguments[1], &v6);
  socklen_t length = parse(text, v6, 0, &address);
  if (length == 0 || napi_create_buffer_copy(env, length, &address, NULL, &buffer) != napi_ok) return NULL;
  return buffer;
}

/* bindUdp(address, v6, port, share, spread) → descriptor of a bound socket, or −errno. `share`: SO_REUSEADDR, `spread`: SO_REUSEPORT */
napi_value bind_udp(napi_env env, napi_callback_info info) {
  napi_value arguments[5], result;
  size_t count = 5;
  char text[64];
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
  int fd = length == 0 ? -1 : socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int fault = length == 0 ? EINVAL : errno;
  if (fd >= 0 && ((v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) ||
                  (share && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) ||
                  (spread && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
                  bind(fd, (struct sockaddr *)&address, length) != 0)) {
    fault = errno;
    close(fd);
    fd = -1;
  }
  return napi_create_int32(env, fd < 0 ? -fault : fd, &result) == napi_ok ? result : NULL;
}

/*
 * sendBatch(descriptor, octets, from, count) → how many of the datagrams that begin at `from` were taken. The next one was
 * not: the socket is full, or it cannot be sent at all.
 */
napi_value send_batch(napi_env env, napi_callback_info info) {
  napi_value arguments[4], result;
  size_t count = 4, length;
  const unsigned char *data;
  int32_t fd, at, datagrams;
  struct iovec parts[BATCH];
  struct mmsghdr messages[BATCH];
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok ||
      napi_get_value_int32(env, arguments[0], &fd) != napi_ok || !get_octets(env, arguments[1], &data, &length) ||
      napi_get_value_int32(env, arguments[2], &at) != napi_ok ||
      napi_get_value_int32(env, arguments[3], &datagrams) != napi_ok)
    return NULL;
  if (at < 0 || datagrams < 0 || datagrams > BATCH) return NULL;
  memset(messages, 0, sizeof *messages * (size_t)datagrams);
  for (int i = 0; i < datagrams; i++) {
    if (length < HEADER || (size_t)at > length - HEADER) return NULL;
    const unsigned char *item = data + at;
    size_t octets = (size_t)item[HEADER - 2] << 8 | item[HEADER - 1];
    if (item[0] > ADDRESS_MAX || octets > length - HEADER - (size_t)at) return NULL;
    parts[i].iov_base = (void *)(item + HEADER);
    parts[i].iov_len = octets;
    messages[i].msg_hdr.msg_name = (void *)(item + 1);
    messages[i].msg_hdr.msg_namelen = item[0];
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    at += (int32_t)(HEADER + octets);
  }
  int sent;
  do sent = sendmmsg(fd, messages, (unsigned)datagrams, MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return napi_create_int32(env, sent < 0 ? 0 : sent, &result) == napi_ok ? result : NULL;
}
#endif
