/* UDP sockets of servers, on Linux: udp.c makes them, udp-batch.c reads and writes them. */
#ifndef IOTCHAIN_UDP_H
#define IOTCHAIN_UDP_H

#include "dtls.h"
#ifdef __linux__

#define BATCH 64
/* Before each datagram: length of the address 1, address up to 28, length of the datagram 2 (big-endian). */
#define ADDRESS_MAX 28
#define HEADER (1 + ADDRESS_MAX + 2)

struct uv_poll_s;

struct udp {
  int fd;                  /* −1 once it is closed */
  int users;               /* the object of JavaScript, and what is polled */
  struct uv_poll_s *poll;  /* NULL while it is not read */
  napi_env env;
  napi_ref callback, space;
  unsigned char *octets;   /* of `space` */
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
};

/* udp.c */
struct udp *udp_of(napi_env env, napi_value value);
napi_value socket_address(napi_env env, napi_callback_info info);
napi_value address_text(napi_env env, napi_callback_info info);
napi_value open_udp(napi_env env, napi_callback_info info);
napi_value udp_address(napi_env env, napi_callback_info info);
napi_value udp_room(napi_env env, napi_callback_info info);
napi_value udp_admit(napi_env env, napi_callback_info info);

/* udp-batch.c */
int can_poll(void);
void release_udp(struct udp *udp);
napi_value read_udp(napi_env env, napi_callback_info info);
napi_value await_room(napi_env env, napi_callback_info info);
napi_value close_udp(napi_env env, napi_callback_info info);
napi_value send_batch(napi_env env, napi_callback_info info);

#endif
#endif
