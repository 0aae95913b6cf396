/*
 * DTLS for Node over the OpenSSL that the Node binary itself contains (its symbols stay undefined here: never link
 * libssl). Datagrams go in, datagrams and plaintext come out; sockets, timers and policy are TypeScript's
 * (transport/dtls/). All state hangs off one environment, so worker threads each have their own.
 */
#ifndef IOTCHAIN_DTLS_H
#define IOTCHAIN_DTLS_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#if OPENSSL_VERSION_MAJOR != 3
#error "the headers of OpenSSL 3 are needed"
#endif

#define COOKIE_SECRET 32
#define TICKET_KEY 80 /* name 16, HMAC-SHA-256 key 32, AES-256 key 32 */
#define TICKET_KEYS 4
#define SPKI_HASH 32
#define PSK_MAX 64
#define IDENTITY_MAX 128
#define DATAGRAM_MAX 16384
#define RECORD_HEADER 13 /* type 1, version 2, epoch 2, number 6, length 2 */

/* What a step brought about: bits of the number that the functions return. */
enum { OPENED = 1, OUTGOING = 2, INCOMING = 4, CLOSED = 8, FAILED = 16, ACCEPTED = 32 };

struct packet {
  struct packet *next;
  size_t length, room;
  unsigned char data[];
};

struct queue {
  struct packet *head, *tail;
};

/* One per Node environment; goes when the environment and all that it made are gone. */
struct state {
  int users;
  BIO_METHOD *method;
};

/* One SSL_CTX and what its callbacks need. Outlives the associations made from it. */
struct context {
  int users, server, trusts, tickets;
  struct state *state;
  OSSL_LIB_CTX *library;                          /* NULL: all that OpenSSL has */
  SSL_CTX *ssl;
  STACK_OF(X509_CRL) *lists;
  unsigned char cookie[2][COOKIE_SECRET];         /* current, previous */
  unsigned char ticket[TICKET_KEYS][TICKET_KEY];  /* current first */
  char identity[IDENTITY_MAX + 1];                /* a client's one pre-shared key */
  unsigned char psk[PSK_MAX];
  size_t psk_length;
};

struct association {
  struct context *context;
  SSL *ssl;
  size_t mtu;
  unsigned first_timer;          /* microseconds */
  unsigned char remote[64];      /* what the cookie is bound to */
  size_t remote_length;
  int pinned;
  unsigned char pin[SPKI_HASH];
  int open, ended, busy, doomed;
  uint64_t answers;              /* record number of the hello whose cookie was right, until the first record after it */
  uint64_t ahead;                /* what is added to the numbers of records in epoch 0 */
  char failure[256];
  struct queue outgoing, incoming;
  /* valid during one call only: */
  napi_env env;
  napi_value lookup;
  const unsigned char *in;
  size_t in_length;
  int peek;
  OSSL_LIB_CTX *before;          /* the thread's, while a step goes by another */
};

/* dtls.c */
int get_octets(napi_env env, napi_value value, const unsigned char **data, size_t *length);
int get_number(napi_env env, napi_value object, const char *name, int64_t *number);
int get_field(napi_env env, napi_value object, const char *name, const unsigned char **data, size_t *length);
napi_value wrap(napi_env env, void *data, const napi_type_tag *tag, napi_finalize finalize);
void *unwrap(napi_env env, napi_value value, const napi_type_tag *tag);
void last_reason(char *text, size_t room);
napi_value throw_reason(napi_env env, const char *what);
void release_state(struct state *state);

/* library.c: where a handshake finds its algorithms */
OSSL_LIB_CTX *handshake_library(void);
OSSL_LIB_CTX *enter_library(OSSL_LIB_CTX *library);
void leave_library(OSSL_LIB_CTX *before);

/* bio.c: datagrams in and out */
BIO_METHOD *new_datagram_method(void);
int push(struct queue *queue, const void *data, size_t length, size_t coalesce);
napi_value shift(napi_env env, struct queue *queue);
void drop(struct queue *queue);
uint64_t record_number(const unsigned char *record);

/* context.c */
napi_value create_context(napi_env env, napi_callback_info info);
napi_value set_ticket_keys(napi_env env, napi_callback_info info);
napi_value rotate_cookie_secret(napi_env env, napi_callback_info info);
struct context *context_of(napi_env env, napi_value value);
void release_context(struct context *context);

/* credentials.c: certificates, keys, trust */
int use_certificate(SSL_CTX *ssl, const unsigned char *pem, size_t length);
int use_key(SSL_CTX *ssl, const unsigned char *pem, size_t length, const unsigned char *pass, size_t pass_length);
int add_trusted(SSL_CTX *ssl, const unsigned char *pem, size_t length);
int add_lists(struct context *context, const unsigned char *pem, size_t length);
int verify_chain(X509_STORE_CTX *store, void *unused);
int verify_step(int ok, X509_STORE_CTX *store);
long standing(const struct context *context, X509 *certificate);

/* association.c: the handshake and the data; facts.c: what it says of itself */
napi_value create_association(napi_env env, napi_callback_info info);
napi_value accept_hello(napi_env env, napi_callback_info info);
napi_value receive(napi_env env, napi_callback_info info);
napi_value expire(napi_env env, napi_callback_info info);
napi_value time_left(napi_env env, napi_callback_info info);
napi_value send_datagram(napi_env env, napi_callback_info info);
napi_value shut(napi_env env, napi_callback_info info);
napi_value dispose(napi_env env, napi_callback_info info);
napi_value take_outgoing(napi_env env, napi_callback_info info);
napi_value take_incoming(napi_env env, napi_callback_info info);
struct association *association_of(napi_env env, napi_value value);
napi_value failure(napi_env env, napi_callback_info info);
napi_value facts(napi_env env, napi_callback_info info);
napi_value session_of(napi_env env, napi_callback_info info);
napi_value certificate_standing(napi_env env, napi_callback_info info);
napi_value export_keying_material(napi_env env, napi_callback_info info);

#endif
