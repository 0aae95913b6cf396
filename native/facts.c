/* What an association says of itself: peer, suite, session, keying material. */
#include "dtls.h"
#include <openssl/err.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

static struct association *only_argument(napi_env env, napi_callback_info info) {
  napi_value argument;
  size_t count = 1;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok) return NULL;
  return association_of(env, argument);
}

static void set_text(napi_env env, napi_value object, const char *name, const char *text) {
  napi_value value;
  if (text != NULL && napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value) == napi_ok)
    napi_set_named_property(env, object, name, value);
}

static void set_flag(napi_env env, napi_value object, const char *name, int flag) {
  napi_value value;
  if (napi_get_boolean(env, flag != 0, &value) == napi_ok) napi_set_named_property(env, object, name, value);
}

/* The octets that an i2d function wrote, as a Buffer; wiped and freed here. */
static napi_value take_der(napi_env env, unsigned char *der, int length) {
  napi_value buffer = NULL;
  if (length > 0 && napi_create_buffer_copy(env, (size_t)length, der, NULL, &buffer) != napi_ok) buffer = NULL;
  if (length > 0) OPENSSL_clear_free(der, (size_t)length);
  return buffer;
}

/* failure(association): why the last step failed. */
napi_value failure(napi_env env, napi_callback_info info) {
  napi_value text;
  struct association *a = only_argument(env, info);
  if (a == NULL || napi_create_string_utf8(env, a->failure, NAPI_AUTO_LENGTH, &text) != napi_ok) return NULL;
  return text;
}

/* facts(association) → {protocol, cipher, reused, extendedMasterSecret, pskIdentity?, certificate?: DER} */
napi_value facts(napi_env env, napi_callback_info info) {
  napi_value object;
  unsigned char *der = NULL;
  struct association *a = only_argument(env, info);
  if (a == NULL || napi_create_object(env, &object) != napi_ok) return NULL;
  set_text(env, object, "protocol", SSL_get_version(a->ssl));
  set_text(env, object, "cipher", SSL_get_cipher_name(a->ssl));
  set_text(env, object, "pskIdentity", SSL_get_psk_identity(a->ssl));
  set_flag(env, object, "reused", SSL_session_reused(a->ssl));
  set_flag(env, object, "extendedMasterSecret", SSL_get_extms_support(a->ssl) == 1);
  X509 *certificate = SSL_get0_peer_certificate(a->ssl);
  if (certificate != NULL && SSL_get_verify_result(a->ssl) == X509_V_OK) {
    /* a statement of its own: C does not say which argument of a call is evaluated first */
    int length = i2d_X509(certificate, &der);
    napi_value buffer = take_der(env, der, length);
    if (buffer != NULL) napi_set_named_property(env, object, "certificate", buffer);
  }
  return object;
}

/* standing(association, context): 0, or OpenSSL's X509_V_ERR_… for what the peer's certificate lacks by now. */
napi_value certificate_standing(napi_env env, napi_callback_info info) {
  napi_value arguments[2], result;
  size_t count = 2;
  struct association *a;
  struct context *context;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return NULL;
  if ((a = association_of(env, arguments[0])) == NULL || (context = context_of(env, arguments[1])) == NULL) return NULL;
  X509 *certificate = SSL_get0_peer_certificate(a->ssl);
  long verdict = certificate == NULL ? X509_V_ERR_UNSPECIFIED : SSL_get_verify_result(a->ssl);
  if (verdict == X509_V_OK) verdict = standing(context, certificate);
  return napi_create_int64(env, verdict, &result) == napi_ok ? result : NULL;
}

/* session(association) → DER of a resumable session, or undefined. */
napi_value session_of(napi_env env, napi_callback_info info) {
  unsigned char *der = NULL;
  struct association *a = only_argument(env, info);
  if (a == NULL || !a->open) return NULL;
  SSL_SESSION *session = SSL_get_session(a->ssl);
  if (session == NULL || !SSL_SESSION_has_ticket(session)) return NULL;
  int length = i2d_SSL_SESSION(session, &der);
  return take_der(env, der, length);
}

/* exportKey(association, length, label, context?): RFC 5705; refused without RFC 7627. */
napi_value export_keying_material(napi_env env, napi_callback_info info) {
  napi_value arguments[4], buffer;
  size_t count = 4, label_length, context_length = 0;
  const unsigned char *label, *context = NULL;
  unsigned char *out;
  int64_t length;
  struct association *a;
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return NULL;
  if ((a = association_of(env, arguments[0])) == NULL) return NULL;
  if (!a->open || SSL_get_extms_support(a->ssl) != 1) {
    napi_throw_error(env, "no-ems", "the handshake had no extended master secret");
    return NULL;
  }
  if (napi_get_value_int64(env, arguments[1], &length) != napi_ok || length < 1 || length > 4096 ||
      !get_octets(env, arguments[2], &label, &label_length))
    return throw_reason(env, "exportKey takes a length of 1 to 4096 and a label");
  int use_context = get_octets(env, arguments[3], &context, &context_length);
  if (napi_create_buffer(env, (size_t)length, (void **)&out, &buffer) != napi_ok) return NULL;
  ERR_clear_error();
  if (SSL_export_keying_material(a->ssl, out, (size_t)length, (const char *)label, label_length, context,
                                 context_length, use_context) != 1)
    return throw_reason(env, "the label cannot be used");
  return buffer;
}
