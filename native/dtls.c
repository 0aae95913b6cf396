/* The module: what it exports, how arguments are read, and on which OpenSSL it agrees to run. */
#include "udp.h"
#include <dlfcn.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int get_octets(napi_env env, napi_value value, const unsigned char **data, size_t *length) {
  bool is_array = false;
  napi_typedarray_type type;
  void *start = NULL;
  *data = NULL;
  *length = 0;
  if (value == NULL || napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array) return 0;
  if (napi_get_typedarray_info(env, value, &type, length, &start, NULL, NULL) != napi_ok || type != napi_uint8_array) {
    *length = 0;
    return 0;
  }
  *data = start != NULL ? start : (const unsigned char *)"";
  return 1;
}

int get_field(napi_env env, napi_value object, const char *name, const unsigned char **data, size_t *length) {
  napi_value value;
  return napi_get_named_property(env, object, name, &value) == napi_ok && get_octets(env, value, data, length);
}

int get_number(napi_env env, napi_value object, const char *name, int64_t *number) {
  napi_value value;
  napi_valuetype type;
  return napi_get_named_property(env, object, name, &value) == napi_ok && napi_typeof(env, value, &type) == napi_ok &&
         type == napi_number && napi_get_value_int64(env, value, number) == napi_ok;
}

napi_value wrap(napi_env env, void *data, const napi_type_tag *tag, napi_finalize finalize) {
  napi_value object;
  if (napi_create_object(env, &object) != napi_ok || napi_type_tag_object(env, object, tag) != napi_ok ||
      napi_wrap(env, object, data, finalize, NULL, NULL) != napi_ok)
    return NULL;
  return object;
}

/* NULL with an exception pending for anything that `wrap` did not make with this tag. */
void *unwrap(napi_env env, napi_value value, const napi_type_tag *tag) {
  napi_valuetype type;
  bool ours = false;
  void *data = NULL;
  if (value != NULL && napi_typeof(env, value, &type) == napi_ok && type == napi_object &&
      napi_check_object_type_tag(env, value, tag, &ours) == napi_ok && ours)
    napi_unwrap(env, value, &data);
  if (data == NULL) napi_throw_type_error(env, "bad-argument", "not a handle of this module");
  return data;
}

/* The newest reason in OpenSSL's queue, which is emptied; of TLS rather than of what it called. */
void last_reason(char *text, size_t room) {
  unsigned long error, chosen = 0;
  while ((error = ERR_get_error()) != 0) {
    if (chosen == 0 || ERR_GET_LIB(error) == ERR_LIB_SSL) chosen = error;
  }
  const char *reason = chosen == 0 ? NULL : ERR_reason_error_string(chosen);
  if (reason != NULL) snprintf(text, room, "%s", reason);
  else if (chosen != 0) snprintf(text, room, "OpenSSL error %lx", chosen);
  else snprintf(text, room, "the peer ended it");
}

napi_value throw_reason(napi_env env, const char *what) {
  char reason[160], text[400];
  int known = ERR_peek_error() != 0;
  last_reason(reason, sizeof reason);
  snprintf(text, sizeof text, known ? "%s: %s" : "%s", what, reason);
  napi_throw_error(env, "bad-options", text);
  return NULL;
}

void release_state(struct state *state) {
  if (--state->users > 0) return;
  BIO_meth_free(state->method);
  free(state);
}

static void finalize_state(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  release_state(data);
}

/*
 * The symbols are bound lazily, so a Node without OpenSSL 3 (BoringSSL builds, Electron) is told apart here, before
 * the first call that it could not resolve.
 */
static int openssl_is_3(char *text, size_t room) {
  unsigned (*major)(void);
  const char *(*version)(int);
  *(void **)&major = dlsym(RTLD_DEFAULT, "OPENSSL_version_major");
  *(void **)&version = dlsym(RTLD_DEFAULT, "OpenSSL_version");
  if (version == NULL) snprintf(text, room, "a Node that does not export OpenSSL");
  else snprintf(text, room, "%s", version(0));
  return major != NULL && major() == 3 && dlsym(RTLD_DEFAULT, "DTLSv1_listen") != NULL;
}

static void add(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok)
    napi_set_named_property(env, exports, name, value);
}

NAPI_MODULE_INIT() {
  char version[128], text[300];
  napi_value value;
  if (!openssl_is_3(version, sizeof version)) {
    snprintf(text, sizeof text, "DTLS needs a Node built with OpenSSL 3; this one has %s", version);
    napi_throw_error(env, "unsupported", text);
    return NULL;
  }
  struct state *state = calloc(1, sizeof *state);
  if (state == NULL || (state->method = new_datagram_method()) == NULL) {
    free(state);
    napi_throw_error(env, "unsupported", "out of memory");
    return NULL;
  }
  state->users = 1;
  if (napi_set_instance_data(env, state, finalize_state, NULL) != napi_ok) {
    release_state(state);
    return NULL;
  }
  if (napi_create_string_utf8(env, version, NAPI_AUTO_LENGTH, &value) == napi_ok)
    napi_set_named_property(env, exports, "openssl", value);
  add(env, exports, "createContext", create_context);
  add(env, exports, "setTicketKeys", set_ticket_keys);
  add(env, exports, "rotateCookieSecret", rotate_cookie_secret);
  add(env, exports, "createAssociation", create_association);
  add(env, exports, "accept", accept_hello);
  add(env, exports, "receive", receive);
  add(env, exports, "expire", expire);
  add(env, exports, "timeLeft", time_left);
  add(env, exports, "send", send_datagram);
  add(env, exports, "shut", shut);
  add(env, exports, "dispose", dispose);
  add(env, exports, "takeOutgoing", take_outgoing);
  add(env, exports, "takeIncoming", take_incoming);
  add(env, exports, "failure", failure);
  add(env, exports, "facts", facts);
  add(env, exports, "session", session_of);
  add(env, exports, "standing", certificate_standing);
  add(env, exports, "exportKey", export_keying_material);
#ifdef __linux__
  if (can_poll()) {
    add(env, exports, "socketAddress", socket_address);
    add(env, exports, "addressText", address_text);
    add(env, exports, "openUdp", open_udp);
    add(env, exports, "udpAddress", udp_address);
    add(env, exports, "udpRoom", udp_room);
    add(env, exports, "readUdp", read_udp);
    add(env, exports, "awaitRoom", await_room);
    add(env, exports, "closeUdp", close_udp);
    add(env, exports, "sendBatch", send_batch);
  }
#endif
  return exports;
}
