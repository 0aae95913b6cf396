/* The SSL_CTX: protocol versions, suites, identity, trust, cookies, tickets, pre-shared keys. */
#include "dtls.h"
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

static const napi_type_tag CONTEXT = {0x8d5c1f0be1a94c37, 0x9a6f20d4c7be1153};

struct context *context_of(napi_env env, napi_value value) { return unwrap(env, value, &CONTEXT); }

void release_context(struct context *context) {
  if (--context->users > 0) return;
  SSL_CTX_free(context->ssl);
  sk_X509_CRL_pop_free(context->lists, X509_CRL_free);
  release_state(context->state);
  OPENSSL_cleanse(context, sizeof *context);
  free(context);
}

/* About what an SSL_CTX with a few certificates holds; V8 sees externals only through this figure. */
#define WEIGHT (48 * 1024)

static void finalize_context(napi_env env, void *data, void *hint) {
  int64_t total;
  (void)hint;
  release_context(data);
  napi_adjust_external_memory(env, -WEIGHT, &total);
}

/* RFC 6347 §4.2.1: HMAC over the peer's address and port, so that nothing is kept for a hello that may be spoofed. */
static int cookie_of(SSL *ssl, int which, unsigned char *cookie, unsigned *length) {
  struct association *a = SSL_get_app_data(ssl);
  return HMAC(EVP_sha256(), a->context->cookie[which], COOKIE_SECRET, a->remote, a->remote_length, cookie, length) !=
         NULL;
}

static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned *length) { return cookie_of(ssl, 0, cookie, length); }

static int check_cookie(SSL *ssl, const unsigned char *cookie, unsigned length) {
  unsigned char expected[EVP_MAX_MD_SIZE];
  unsigned expected_length = 0;
  for (int which = 0; which < 2; which++) {
    if (cookie_of(ssl, which, expected, &expected_length) && expected_length == length &&
        CRYPTO_memcmp(expected, cookie, length) == 0)
      return 1;
  }
  return 0;
}

/* RFC 5077 tickets under several keys. Enrolment (PSK) gets none: its code is good for one association. */
static int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                      int encrypt) {
  struct association *a = SSL_get_app_data(ssl);
  struct context *context = a->context;
  int which = 0;
  if (encrypt) {
    if (context->tickets == 0 || SSL_get_psk_identity(ssl) != NULL) return 0;
    if (RAND_bytes(iv, 16) != 1) return -1;
    memcpy(name, context->ticket[0], 16);
  } else {
    while (which < context->tickets && CRYPTO_memcmp(name, context->ticket[which], 16) != 0) which++;
    if (which == context->tickets) return 0;
  }
  unsigned char *key = context->ticket[which];
  OSSL_PARAM parameters[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key + 16, 32),
                             OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0),
                             OSSL_PARAM_construct_end()};
  if (EVP_MAC_CTX_set_params(mac, parameters) != 1) return -1;
  if (EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + 48, iv, encrypt) != 1) return -1;
  return which == 0 ? 1 : 2;
}

/* A ticket of a certificate that ran out or was revoked since leads to a full handshake, which refuses it aloud. */
static SSL_TICKET_RETURN judge_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t name_length,
                                      SSL_TICKET_STATUS status, void *unused) {
  const struct context *context = ((struct association *)SSL_get_app_data(ssl))->context;
  (void)name, (void)name_length, (void)unused;
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) return SSL_TICKET_RETURN_IGNORE_RENEW;
  X509 *certificate = SSL_SESSION_get0_peer(session);
  if (certificate != NULL && standing(context, certificate) != X509_V_OK) return SSL_TICKET_RETURN_IGNORE_RENEW;
  return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* Asks the look-up of TypeScript, which the current call brought along. */
static unsigned find_psk(SSL *ssl, const char *identity, unsigned char *psk, unsigned room) {
  struct association *a = SSL_get_app_data(ssl);
  napi_value receiver, argument, result, ignored;
  const unsigned char *key;
  size_t length;
  if (a->lookup == NULL || napi_get_undefined(a->env, &receiver) != napi_ok ||
      napi_create_string_utf8(a->env, identity, NAPI_AUTO_LENGTH, &argument) != napi_ok)
    return 0;
  leave_library(a->before);
  napi_status status = napi_call_function(a->env, receiver, a->lookup, 1, &argument, &result);
  a->before = enter_library(a->context->library);
  if (status != napi_ok) {
    napi_get_and_clear_last_exception(a->env, &ignored);
    return 0;
  }
  if (!get_octets(a->env, result, &key, &length) || length == 0 || length > room) return 0;
  memcpy(psk, key, length);
  return (unsigned)length;
}

static unsigned give_psk(SSL *ssl, const char *hint, char *identity, unsigned identity_room, unsigned char *psk,
                         unsigned room) {
  struct context *context = ((struct association *)SSL_get_app_data(ssl))->context;
  size_t length = strlen(context->identity);
  (void)hint;
  if (length + 1 > identity_room || context->psk_length > room) return 0;
  memcpy(identity, context->identity, length + 1);
  memcpy(psk, context->psk, context->psk_length);
  return (unsigned)context->psk_length;
}

static int set_tickets(struct context *context, const unsigned char *keys, size_t length) {
  if (length % TICKET_KEY != 0 || length > sizeof context->ticket) return 0;
  memcpy(context->ticket, keys, length);
  context->tickets = (int)(length / TICKET_KEY);
  return 1;
}

static const char *configure(napi_env env, napi_value options, struct context *context) {
  SSL_CTX *ssl = context->ssl;
  const unsigned char *data, *pass = NULL;
  size_t length, pass_length = 0;
  int64_t client_auth = 0, lookup = 0;
  SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_QUERY_MTU | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(ssl, SSL_MODE_NO_AUTO_CHAIN); /* send what `cert` holds, not what `ca` would add to it */
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_timeout(ssl, 12 * 3600);
  if (SSL_CTX_set_min_proto_version(ssl, DTLS1_2_VERSION) != 1 || SSL_CTX_set_max_proto_version(ssl, DTLS1_2_VERSION) != 1 ||
      SSL_CTX_set1_groups_list(ssl, "P-256:X25519") != 1)
    return "DTLS 1.2 with P-256 is not available in this OpenSSL";
  if (get_field(env, options, "ciphers", &data, &length)) {
    char list[1024];
    if (length >= sizeof list) return "the cipher list is too long";
    memcpy(list, data, length);
    list[length] = 0;
    if (SSL_CTX_set_cipher_list(ssl, list) != 1) return "no suite of the cipher list is known";
  }
  get_field(env, options, "passphrase", &pass, &pass_length);
  if (get_field(env, options, "cert", &data, &length) && !use_certificate(ssl, data, length))
    return "the certificate cannot be used";
  if (get_field(env, options, "key", &data, &length) && !use_key(ssl, data, length, pass, pass_length))
    return "the private key cannot be used";
  if (get_field(env, options, "ca", &data, &length)) {
    if (!add_trusted(ssl, data, length)) return "the CA certificates cannot be used";
    context->trusts = 1;
  }
  if (get_field(env, options, "crl", &data, &length) && !add_lists(context, data, length))
    return "the revocation lists cannot be used";
  if (get_field(env, options, "sessionIdContext", &data, &length) &&
      SSL_CTX_set_session_id_context(ssl, data, (unsigned)length) != 1)
    return "the session id context is too long";
  if (get_field(env, options, "ticketKeys", &data, &length) && !set_tickets(context, data, length))
    return "ticket keys have 80 octets each, four at most";
  if (get_field(env, options, "psk", &data, &length)) {
    if (length > PSK_MAX) return "a pre-shared key has 64 octets at most";
    memcpy(context->psk, data, context->psk_length = length);
    if (!get_field(env, options, "pskIdentity", &data, &length) || length > IDENTITY_MAX)
      return "a pre-shared key needs an identity of 128 octets at most";
    memcpy(context->identity, data, length);
    SSL_CTX_set_psk_client_callback(ssl, give_psk);
  }
  get_number(env, options, "clientAuth", &client_auth);
  int mode = context->server && client_auth == 0 ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
  SSL_CTX_set_verify(ssl, client_auth == 2 ? mode | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : mode, verify_step);
  SSL_CTX_set_cert_verify_callback(ssl, verify_chain, NULL);
  if (context->server) {
    SSL_CTX_set_cookie_generate_cb(ssl, make_cookie);
    SSL_CTX_set_cookie_verify_cb(ssl, check_cookie);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, ticket_key);
    SSL_CTX_set_session_ticket_cb(ssl, NULL, judge_ticket, NULL);
    if (get_number(env, options, "lookup", &lookup) && lookup) SSL_CTX_set_psk_server_callback(ssl, find_psk);
    if (RAND_bytes(context->cookie[0], 2 * COOKIE_SECRET) != 1) return "no random octets";
  }
  return NULL;
}

/* createContext({server, cert, key, passphrase, ca, crl, ciphers, named, clientAuth, psk, pskIdentity, ticketKeys …}) */
napi_value create_context(napi_env env, napi_callback_info info) {
  napi_value options;
  size_t count = 1;
  struct state *state;
  int64_t server = 0, named = 0, total;
  if (napi_get_cb_info(env, info, &count, &options, NULL, NULL) != napi_ok ||
      napi_get_instance_data(env, (void **)&state) != napi_ok)
    return NULL;
  get_number(env, options, "server", &server);
  ERR_clear_error();
  struct context *context = calloc(1, sizeof *context);
  if (context == NULL) return throw_reason(env, "out of memory");
  context->users = 1;
  context->server = server != 0;
  context->state = state;
  state->users++;
  context->lists = sk_X509_CRL_new_null();
  /* whoever names suites may name any */
  if (!get_number(env, options, "named", &named) || !named) context->library = handshake_library();
  context->ssl = SSL_CTX_new_ex(context->library, NULL, context->server ? DTLS_server_method() : DTLS_client_method());
  const char *fault = context->ssl == NULL || context->lists == NULL ? "no SSL context" : configure(env, options, context);
  napi_value handle = fault == NULL ? wrap(env, context, &CONTEXT, finalize_context) : NULL;
  if (handle == NULL) {
    throw_reason(env, fault == NULL ? "out of memory" : fault);
    release_context(context);
    return NULL;
  }
  napi_adjust_external_memory(env, WEIGHT, &total);
  return handle;
}

/* setTicketKeys(context, keys) */
napi_value set_ticket_keys(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2, length;
  const unsigned char *keys;
  struct context *context;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return NULL;
  if ((context = context_of(env, arguments[0])) == NULL) return NULL;
  if (!get_octets(env, arguments[1], &keys, &length) || !set_tickets(context, keys, length))
    return throw_reason(env, "ticket keys have 80 octets each, four at most");
  return NULL;
}

/* rotateCookieSecret(context): cookies made before the last but one rotation are void. */
napi_value rotate_cookie_secret(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  struct context *context;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok) return NULL;
  if ((context = context_of(env, argument)) == NULL) return NULL;
  memcpy(context->cookie[1], context->cookie[0], COOKIE_SECRET);
  if (RAND_bytes(context->cookie[0], COOKIE_SECRET) != 1) return throw_reason(env, "no random octets");
  return NULL;
}
