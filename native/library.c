/*
 * OpenSSL 3.0 and 3.1 look through every algorithm that they know, name by name, for each public key that they read: a
 * handshake reads three (the chain of the peer, and its certificate again for a ticket) and spent a third of its time
 * on that. So its contexts get a library context in which OpenSSL's default provider offers only what our suites and the
 * keys of certificates need. The implementations are OpenSSL's own, and its configuration decides whether they are to be
 * had: without the default provider, or under FIPS, nothing is set aside. OpenSSL 3.2 and later read keys fast enough.
 */
#include "dtls.h"
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <string.h>

/* By the first of their names; AES-256-CBC is for tickets too. DH, DSA and X448 have no part in a handshake of ours. */
static const char *const OFFERED[] = {
    "AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305", "AES-128-CCM", "AES-256-CCM", "AES-128-CBC", "AES-256-CBC",
    "SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512", "SHAKE-256", "HMAC", "TLS1-PRF",
    "EC", "ECDH", "ECDSA", "X25519", "ED25519", "ED448", "RSA", "RSA-PSS",
    "CTR-DRBG", "SEED-SRC",
    "DER", /* the decoder of the envelope in which every public key comes */
};
/* So many algorithms has no operation that is left after this choice. */
#define MOST 32

static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;
static OSSL_PROVIDER *whole;
static OSSL_ALGORITHM offered[OSSL_OP__HIGHEST + 1][MOST + 1];
static OSSL_LIB_CTX *library;

static int is_offered(const OSSL_ALGORITHM *algorithm, int operation) {
  size_t length = strcspn(algorithm->algorithm_names, ":");
  if (operation == OSSL_OP_DECODER && strstr(algorithm->property_definition, "SubjectPublicKeyInfo") == NULL) return 0;
  for (size_t i = 0; i < sizeof OFFERED / sizeof *OFFERED; i++) {
    if (strlen(OFFERED[i]) == length && strncmp(OFFERED[i], algorithm->algorithm_names, length) == 0) return 1;
  }
  return 0;
}

static const OSSL_ALGORITHM *query(void *context, int operation, int *changes) {
  (void)context;
  *changes = 0;
  return operation > 0 && operation <= OSSL_OP__HIGHEST ? offered[operation] : NULL;
}

/* The groups and signature schemes of TLS. */
static int capabilities(void *context, const char *kind, OSSL_CALLBACK *found, void *argument) {
  (void)context;
  return OSSL_PROVIDER_get_capabilities(whole, kind, found, argument);
}

static int start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **own, void **context) {
  static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
                                            {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capabilities},
                                            {0, NULL}};
  (void)handle, (void)core;
  *own = functions;
  *context = OSSL_PROVIDER_get0_provider_ctx(whole); /* which the implementations expect: they are those of `whole` */
  return 1;
}

static void set_aside(void) {
  int changes;
  if (OPENSSL_version_minor() >= 2 || EVP_default_properties_is_fips_enabled(NULL) ||
      !OSSL_PROVIDER_available(NULL, "default") || (whole = OSSL_PROVIDER_load(NULL, "default")) == NULL)
    return;
  for (int operation = 1; operation <= OSSL_OP__HIGHEST; operation++) {
    const OSSL_ALGORITHM *each = OSSL_PROVIDER_query_operation(whole, operation, &changes);
    if (operation == OSSL_OP_ENCODER || operation == OSSL_OP_STORE) continue;
    for (size_t kept = 0; each != NULL && each->algorithm_names != NULL; each++) {
      if (!is_offered(each, operation)) continue;
      if (kept == MOST) return;
      offered[operation][kept++] = *each;
    }
  }
  OSSL_LIB_CTX *made = OSSL_LIB_CTX_new();
  if (made != NULL && OSSL_PROVIDER_add_builtin(made, "iotchain", start) == 1 && OSSL_PROVIDER_load(made, "iotchain") != NULL)
    library = made; /* for as long as the process lives: threads share it, and what it read refers to it */
  else OSSL_LIB_CTX_free(made);
}

OSSL_LIB_CTX *handshake_library(void) {
  if (CRYPTO_THREAD_run_once(&once, set_aside) != 1) return NULL;
  return library;
}

/*
 * For the ticket OpenSSL reads the session back by the thread's default context. Gives the one before, NULL for none
 * that must be put back: code of others, a look-up for one, must run under theirs.
 */
OSSL_LIB_CTX *enter_library(OSSL_LIB_CTX *entered) { return entered == NULL ? NULL : OSSL_LIB_CTX_set0_default(entered); }

void leave_library(OSSL_LIB_CTX *before) {
  if (before != NULL) OSSL_LIB_CTX_set0_default(before);
}
