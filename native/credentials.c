/* Certificates, private keys, what is trusted, and what is checked of a peer. */
#include "dtls.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

/* True where the PEM text ended after at least one item, and not in the middle of a broken one. */
static int pem_ended(int items) {
  unsigned long error = ERR_peek_last_error();
  if (items == 0 || ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) return 0;
  ERR_clear_error();
  return 1;
}

int use_certificate(SSL_CTX *ssl, const unsigned char *pem, size_t length) {
  BIO *bio = BIO_new_mem_buf(pem, (int)length);
  X509 *certificate = bio == NULL ? NULL : PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
  int ok = certificate != NULL && SSL_CTX_use_certificate(ssl, certificate) == 1;
  X509_free(certificate);
  while (ok && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
    ok = SSL_CTX_add0_chain_cert(ssl, certificate) == 1;
    if (!ok) X509_free(certificate);
  }
  ok = ok && pem_ended(1);
  BIO_free(bio);
  return ok;
}

struct passphrase {
  const unsigned char *text;
  size_t length;
};

/* Never asks at the terminal, which is OpenSSL's default. */
static int give_passphrase(char *buffer, int room, int writing, void *data) {
  const struct passphrase *pass = data;
  (void)writing;
  if (pass->text == NULL || pass->length > (size_t)room) return -1;
  memcpy(buffer, pass->text, pass->length);
  return (int)pass->length;
}

int use_key(SSL_CTX *ssl, const unsigned char *pem, size_t length, const unsigned char *text, size_t text_length) {
  struct passphrase pass = {text, text_length};
  BIO *bio = BIO_new_mem_buf(pem, (int)length);
  EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, &pass);
  int ok = key != NULL && SSL_CTX_use_PrivateKey(ssl, key) == 1 && SSL_CTX_check_private_key(ssl) == 1;
  EVP_PKEY_free(key);
  BIO_free(bio);
  return ok;
}

/* An issuing certificate listed here is trusted as it is, without a root beside it. */
int add_trusted(SSL_CTX *ssl, const unsigned char *pem, size_t length) {
  X509_STORE *store = SSL_CTX_get_cert_store(ssl);
  BIO *bio = BIO_new_mem_buf(pem, (int)length);
  X509 *certificate;
  int items = 0, ok = bio != NULL;
  while (ok && (certificate = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)) != NULL) {
    ok = X509_STORE_add_cert(store, certificate) == 1;
    X509_free(certificate);
    items++;
  }
  ok = ok && pem_ended(items) && X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1;
  BIO_free(bio);
  return ok;
}

int add_lists(struct context *context, const unsigned char *pem, size_t length) {
  X509_STORE *store = SSL_CTX_get_cert_store(context->ssl);
  BIO *bio = BIO_new_mem_buf(pem, (int)length);
  X509_CRL *list;
  int items = 0, ok = bio != NULL;
  while (ok && (list = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) != NULL) {
    ok = X509_STORE_add_crl(store, list) == 1 && sk_X509_CRL_push(context->lists, list) > 0;
    if (!ok) X509_CRL_free(list);
    items++;
  }
  ok = ok && pem_ended(items) && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1;
  BIO_free(bio);
  return ok;
}

/* An issuer of which no list was given is not checked for revocation; an outdated or forged list stays fatal. */
int verify_step(int ok, X509_STORE_CTX *store) {
  if (ok || X509_STORE_CTX_get_error(store) != X509_V_ERR_UNABLE_TO_GET_CRL) return ok;
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  const struct context *context = ((struct association *)SSL_get_app_data(ssl))->context;
  X509 *certificate = X509_STORE_CTX_get_current_cert(store);
  for (int i = 0; certificate != NULL && i < sk_X509_CRL_num(context->lists); i++) {
    X509_NAME *issuer = X509_CRL_get_issuer(sk_X509_CRL_value(context->lists, i));
    if (X509_NAME_cmp(issuer, X509_get_issuer_name(certificate)) == 0) return 0; /* there is one, of another key */
  }
  X509_STORE_CTX_set_error(store, X509_V_OK);
  return 1;
}

static int pin_holds(const struct association *a, X509 *certificate) {
  unsigned char *der = NULL, hash[EVP_MAX_MD_SIZE];
  unsigned hash_length = 0;
  int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  int ok = length > 0 && EVP_Digest(der, (size_t)length, hash, &hash_length, EVP_sha256(), NULL) == 1 &&
           hash_length == SPKI_HASH && CRYPTO_memcmp(hash, a->pin, SPKI_HASH) == 0;
  OPENSSL_free(der);
  return ok;
}

/*
 * OpenSSL's path validation (chain, dates, purpose, name, lists). A pinned key is compared first; where nothing else
 * is trusted, the certificate of the pinned key is itself the anchor, and dates and purpose are checked all the same.
 */
int verify_chain(X509_STORE_CTX *store, void *unused) {
  SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
  struct association *a = SSL_get_app_data(ssl);
  X509 *certificate = X509_STORE_CTX_get0_cert(store);
  (void)unused;
  if (!a->pinned) return X509_verify_cert(store);
  if (!pin_holds(a, certificate)) {
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
  }
  if (a->context->trusts) return X509_verify_cert(store);
  STACK_OF(X509) *anchor = sk_X509_new_null();
  int ok = anchor != NULL && sk_X509_push(anchor, certificate) > 0;
  if (ok) {
    X509_STORE_CTX_set0_trusted_stack(store, anchor);
    X509_STORE_CTX_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    ok = X509_verify_cert(store);
  }
  sk_X509_free(anchor);
  return ok;
}

/* Whether a certificate that verified in the handshake (or in the one it resumed) still counts. */
long standing(const struct context *context, X509 *certificate) {
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) return X509_V_ERR_CERT_HAS_EXPIRED;
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) return X509_V_ERR_CERT_NOT_YET_VALID;
  for (int i = 0; i < sk_X509_CRL_num(context->lists); i++) {
    X509_CRL *list = sk_X509_CRL_value(context->lists, i);
    X509_REVOKED *entry;
    if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_issuer_name(certificate)) != 0) continue;
    if (X509_CRL_get0_by_cert(list, &entry, certificate) == 1) return X509_V_ERR_CERT_REVOKED;
  }
  return X509_V_OK;
}
