/* One SSL: hellos, handshake, data, timers, end. Each step returns bits that say what it brought about. */
#include "dtls.h"
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const napi_type_tag ASSOCIATION = {0x1f6a7c2e90d34b85, 0xb7e41d0c5a8f2396};

/* About what OpenSSL holds per association; V8 sees externals only through this figure. */
#define WEIGHT (64 * 1024)

/* A ClientHello with cookie and server name, without its ticket. */
#define HELLO_MAX 400

/* NULL with an exception pending where it is none of ours or was disposed of. */
struct association *association_of(napi_env env, napi_value value) {
  struct association *a = unwrap(env, value, &ASSOCIATION);
  if (a != NULL && (a->ssl == NULL || a->doomed)) {
    napi_throw_error(env, "closed", "the association is closed");
    return NULL;
  }
  return a;
}

static void free_parts(napi_env env, struct association *a) {
  int64_t total;
  if (a->ssl == NULL) return;
  SSL_free(a->ssl);
  a->ssl = NULL;
  drop(&a->outgoing);
  drop(&a->incoming);
  release_context(a->context);
  a->context = NULL;
  napi_adjust_external_memory(env, -WEIGHT, &total);
}

static void finalize_association(napi_env env, void *data, void *hint) {
  (void)hint;
  free_parts(env, data);
  free(data);
}

static unsigned next_timer(SSL *ssl, unsigned previous) {
  struct association *a = SSL_get_app_data(ssl);
  if (previous == 0) return a->first_timer;
  return previous >= 30000000 ? 60000000 : 2 * previous;
}

static const char *prepare(napi_env env, napi_value options, struct association *a) {
  const unsigned char *data;
  size_t length;
  int64_t number = 1000;
  char name[256];
  get_number(env, options, "retransmitInitial", &number);
  a->first_timer = (unsigned)number * 1000;
  number = 1200;
  get_number(env, options, "mtu", &number);
  a->mtu = (size_t)number;
  if (SSL_set_mtu(a->ssl, (long)a->mtu) <= 0) return "the mtu is too small";
  DTLS_set_timer_cb(a->ssl, next_timer);
  if (a->context->server) {
    SSL_set_accept_state(a->ssl);
    return NULL;
  }
  SSL_set_connect_state(a->ssl);
  if (get_field(env, options, "pin", &data, &length)) {
    if (length != SPKI_HASH) return "a pin has 32 octets";
    memcpy(a->pin, data, SPKI_HASH);
    a->pinned = 1;
  }
  if (get_field(env, options, "name", &data, &length)) {
    if (length >= sizeof name) return "the server name is too long";
    memcpy(name, data, length);
    name[length] = 0;
    if (SSL_set_tlsext_host_name(a->ssl, name) != 1) return "the server name cannot be used";
  }
  if (get_field(env, options, "checkName", &data, &length)) {
    SSL_set_hostflags(a->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_host(SSL_get0_param(a->ssl), (const char *)data, length) != 1)
      return "the server name cannot be used";
  }
  if (get_field(env, options, "checkAddress", &data, &length)) {
    if (length >= sizeof name) return "the server address is too long";
    memcpy(name, data, length);
    name[length] = 0;
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(a->ssl), name) != 1) return "the server address cannot be used";
  }
  if (get_field(env, options, "session", &data, &length)) {
    /*
     * One that this OpenSSL cannot read is as good as none, and so is a ticket that would split the ClientHello: no
     * server answers half a hello statelessly. A full handshake follows.
     */
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &data, (long)length);
    const unsigned char *ticket;
    size_t ticket_length = 0;
    if (session != NULL) SSL_SESSION_get0_ticket(session, &ticket, &ticket_length);
    if (session != NULL && ticket_length + HELLO_MAX <= a->mtu) SSL_set_session(a->ssl, session);
    SSL_SESSION_free(session);
    ERR_clear_error();
  }
  return NULL;
}

/* createAssociation(context, {mtu, retransmitInitial, name, checkName, checkAddress, pin, session}) */
napi_value create_association(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  int64_t total;
  struct context *context;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return NULL;
  if ((context = context_of(env, arguments[0])) == NULL) return NULL;
  ERR_clear_error();
  struct association *a = calloc(1, sizeof *a);
  if (a == NULL) return throw_reason(env, "out of memory");
  a->ssl = SSL_new(context->ssl);
  if (a->ssl == NULL) {
    free(a);
    return throw_reason(env, "no SSL");
  }
  a->context = context;
  context->users++;
  napi_adjust_external_memory(env, WEIGHT, &total);
  SSL_set_app_data(a->ssl, a);
  BIO *bio = BIO_new(context->state->method);
  const char *fault = "out of memory";
  if (bio != NULL) {
    BIO_set_data(bio, a);
    SSL_set_bio(a->ssl, bio, bio);
    fault = prepare(env, arguments[1], a);
  }
  napi_value handle = fault == NULL ? wrap(env, a, &ASSOCIATION, finalize_association) : NULL;
  if (handle == NULL) {
    throw_reason(env, fault == NULL ? "out of memory" : fault);
    finalize_association(env, a, NULL);
  }
  return handle;
}

/* Keeps the reason of a failure: OpenSSL's, and for a certificate what was wrong with it. */
static void fail(struct association *a) {
  char reason[160];
  long verdict = SSL_get_verify_result(a->ssl);
  last_reason(reason, sizeof reason);
  if (verdict != X509_V_OK && strstr(reason, "certificate verify failed") != NULL) {
    const char *why = verdict == X509_V_ERR_CERT_REJECTED && a->pinned ? "the key is not the pinned one"
                                                                        : X509_verify_cert_error_string(verdict);
    snprintf(a->failure, sizeof a->failure, "%s: %s", reason, why);
  } else {
    snprintf(a->failure, sizeof a->failure, "%s", reason);
  }
  a->ended = 1;
}

static int settle(struct association *a, int result) {
  switch (SSL_get_error(a->ssl, result)) {
    case SSL_ERROR_ZERO_RETURN:
      a->ended = 1;
      return CLOSED;
    case SSL_ERROR_SSL:
    case SSL_ERROR_SYSCALL:
      fail(a);
      return FAILED;
    default:
      ERR_clear_error();
      return 0;
  }
}

/* Handshake as far as it goes, then every record that waits. */
static int advance(struct association *a) {
  unsigned char buffer[DATAGRAM_MAX];
  int happened = 0;
  if (a->ended) return 0;
  if (!a->open) {
    int result = SSL_do_handshake(a->ssl);
    if (result != 1) return settle(a, result);
    a->open = 1;
    happened |= OPENED;
  }
  for (;;) {
    int length = SSL_read(a->ssl, buffer, sizeof buffer);
    if (length <= 0) return happened | settle(a, length);
    if (!push(&a->incoming, buffer, (size_t)length, 0)) return happened;
  }
}

/* The arguments (association, datagram or undefined, look-up or undefined, …), for the time of one call. */
static struct association *enter(napi_env env, napi_callback_info info, napi_value *arguments, size_t count) {
  napi_valuetype type;
  struct association *a;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return NULL;
  if ((a = association_of(env, arguments[0])) == NULL) return NULL;
  if (a->busy) {
    napi_throw_error(env, "busy", "the association is inside a handshake step");
    return NULL;
  }
  if (!get_octets(env, arguments[1], &a->in, &a->in_length) || a->in_length == 0) a->in = NULL;
  a->lookup = napi_typeof(env, arguments[2], &type) == napi_ok && type == napi_function ? arguments[2] : NULL;
  a->env = env;
  a->before = enter_library(a->context->library);
  a->busy = 1;
  ERR_clear_error();
  return a;
}

static napi_value leave(napi_env env, struct association *a, int happened) {
  napi_value bits;
  if (a->outgoing.head != NULL) happened |= OUTGOING;
  if (a->incoming.head != NULL) happened |= INCOMING;
  leave_library(a->before);
  a->before = NULL;
  a->busy = 0;
  a->in = NULL;
  a->in_length = 0;
  a->lookup = NULL;
  a->env = NULL;
  ERR_clear_error();
  if (a->doomed) {
    free_parts(env, a);
    happened = 0;
  }
  return napi_create_int32(env, happened, &bits) == napi_ok ? bits : NULL;
}

/*
 * accept(association, hello, lookup, remote, full): nothing is kept of a hello without a valid cookie. Where `full` is
 * true a valid one is only reported: there is no room, and no effort is spent.
 */
napi_value accept_hello(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  const unsigned char *remote;
  size_t length;
  bool full = false;
  struct association *a = enter(env, info, arguments, 5);
  if (a == NULL) return NULL;
  int happened = 0;
  BIO_ADDR *unused = BIO_ADDR_new();
  if (unused != NULL && get_octets(env, arguments[3], &remote, &length) && length <= sizeof a->remote) {
    memcpy(a->remote, remote, a->remote_length = length);
    napi_get_value_bool(env, arguments[4], &full);
    uint64_t number = a->in_length >= RECORD_HEADER ? record_number(a->in) : 0;
    if (DTLSv1_listen(a->ssl, unused) > 0) {
      a->answers = number;
      happened = ACCEPTED | (full ? 0 : advance(a));
    }
  }
  BIO_ADDR_free(unused);
  return leave(env, a, happened);
}

/* receive(association, datagram?, lookup?): without a datagram a client's first step. */
napi_value receive(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct association *a = enter(env, info, arguments, 3);
  return a == NULL ? NULL : leave(env, a, advance(a));
}

/* expire(association): the retransmission timer ran out. */
napi_value expire(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct association *a = enter(env, info, arguments, 3);
  int happened = 0;
  if (a == NULL) return NULL;
  if (!a->ended && DTLSv1_handle_timeout(a->ssl) < 0) {
    fail(a);
    happened = FAILED;
  }
  return leave(env, a, happened);
}

/* timeLeft(association): milliseconds to the next retransmission, −1 where none is due. */
napi_value time_left(napi_env env, napi_callback_info info) {
  napi_value argument, result;
  size_t count = 1;
  struct timeval left;
  struct association *a;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok) return NULL;
  if ((a = association_of(env, argument)) == NULL) return NULL;
  double ms = DTLSv1_get_timeout(a->ssl, &left) == 1 ? (double)left.tv_sec * 1e3 + (double)left.tv_usec / 1e3 : -1;
  return napi_create_double(env, ms, &result) == napi_ok ? result : NULL;
}

/* send(association, datagram) */
napi_value send_datagram(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct association *a = enter(env, info, arguments, 3);
  int happened = 0;
  if (a == NULL) return NULL;
  const unsigned char *data = a->in;
  size_t length = a->in_length;
  a->in = NULL; /* SSL_write must not read it as a datagram */
  if (a->open && !a->ended && data != NULL && length <= DATAGRAM_MAX) {
    int result = SSL_write(a->ssl, data, (int)length);
    if (result <= 0) happened = settle(a, result);
  }
  return leave(env, a, happened);
}

/* shut(association): close_notify. */
napi_value shut(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct association *a = enter(env, info, arguments, 3);
  if (a == NULL) return NULL;
  if (a->open && !a->ended) SSL_shutdown(a->ssl);
  a->ended = 1;
  return leave(env, a, 0);
}

/* dispose(association): frees what OpenSSL holds, at once or, inside a look-up, after the step. Idempotent. */
napi_value dispose(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok) return NULL;
  struct association *a = unwrap(env, argument, &ASSOCIATION);
  if (a == NULL) return NULL;
  if (a->busy) a->doomed = 1;
  else free_parts(env, a);
  return NULL;
}

static napi_value take(napi_env env, napi_callback_info info, int incoming) {
  napi_value argument;
  size_t count = 1;
  struct association *a;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok) return NULL;
  if ((a = unwrap(env, argument, &ASSOCIATION)) == NULL) return NULL;
  return shift(env, incoming ? &a->incoming : &a->outgoing);
}

napi_value take_outgoing(napi_env env, napi_callback_info info) { return take(env, info, 0); }

napi_value take_incoming(napi_env env, napi_callback_info info) { return take(env, info, 1); }
