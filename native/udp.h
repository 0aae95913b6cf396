/* UDP sockets of servers, on Linux: udp.c makes them, udp-batch.c reads and writes them. */
#ifndef IOTCHAIN_UDP_H
#define IOTCHAIN_UDP_H

#include "dtls.h"
#ifdef __linux__

#define BATCH 64
/*
 * Before each datagram: length of the peer's address 1, the address up to 28; length of our own 1, up to 20; length of the
 * datagram 2 (big-endian). Our own address is a struct in_pktinfo or in6_pktinfo, as it is given to the system with an answer;
 * absent where the socket is bound to one, or the system may choose.
 */
#define ADDRESS_MAX 28
#define OWN_MAX 20
#define OWN_AT (1 + ADDRESS_MAX)
#define LENGTH_AT (OWN_AT + 1 + OWN_MAX)
#define HEADER (LENGTH_AT + 2)

struct uv_poll_s;

struct udp {
  int fd;                  /* −1 once it is closed */
  int users;               /* the object of JavaScript, and what is polled */
  int v6;
  struct uv_poll_s *poll;  /* NULL while it is not read */
  napi_env env;
  napi_ref callback, space;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
};

/* udp.c */
napi_value number(napi_env env, int32_t value);
struct udp *udp_of(napi_env env, napi_value value);
napi_value socket_address(napi_env env, napi_callback_info info);
napi_value address_text(napi_env env, napi_callback_info info);
napi_value open_udp(napi_env env, napi_callback_info info);
napi_value udp_address(napi_env env, napi_callback_info info);
napi_value udp_room(napi_env env, napi_callback_info info);

/* udp-batch.c */
int can_poll(void);
void release_udp(struct udp *udp);
napi_value read_udp(napi_env env, napi_callback_info info);
napi_value await_room(napi_env env, napi_callback_info info);
napi_value close_udp(napi_env env, napi_callback_info info);
napi_value send_batch(napi_env env, napi_callback_info info);

#endif
#endif
