/* A CoAP server and client on libcoap 3, driven over standard input and output (test/peers/protocol.ts says how).
 *
 *   peer server HOST PORT     serves the resources that every peer serves, until standard input ends
 *   peer client HOST PORT     one command a line, one JSON result a line
 *
 * Built against libcoap-3-notls; block-wise transfer is libcoap's own (COAP_BLOCK_USE_LIBCOAP | COAP_BLOCK_SINGLE_BODY).
 */
#include <coap3/coap.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#define LARGE 10240
#define MAX_BODY (256 * 1024)

static const char SMALL[] = "a small body of 29 octets: ok";

static void fill(uint8_t *out, size_t size, unsigned seed) {
  for (size_t i = 0; i < size; i++) out[i] = (uint8_t)(i * 31 + (i >> 8) * 17 + seed);
}

static void resolve(const char *host, const char *port, coap_address_t *address) {
  struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST}, *found = NULL;
  if (getaddrinfo(host, port, &hints, &found) != 0) {
    fprintf(stderr, "cannot resolve %s\n", host);
    exit(2);
  }
  coap_address_init(address);
  address->size = found->ai_addrlen;
  memcpy(&address->addr, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
}

static int stdin_ended(void) {
  fd_set set;
  struct timeval now = {0, 0};
  char drop[256];
  FD_ZERO(&set);
  FD_SET(0, &set);
  return select(1, &set, NULL, NULL, &now) > 0 && read(0, drop, sizeof drop) == 0;
}

/* ---------------------------------------------------------------- server */

static uint8_t large[LARGE], reading[175], obs_large[LARGE], store[MAX_BODY];
static size_t store_size;
static unsigned ticks, large_ticks;
static coap_resource_t *obs_resource, *obs_large_resource;

static int has_etag(const coap_pdu_t *request, coap_option_num_t number, const uint8_t *etag, size_t size) {
  coap_opt_iterator_t it;
  coap_opt_filter_t filter;
  coap_opt_t *option;
  coap_option_filter_clear(&filter);
  coap_option_filter_set(&filter, number);
  coap_option_iterator_init(request, &it, &filter);
  while ((option = coap_option_next(&it)) != NULL)
    if (coap_opt_length(option) == size && memcmp(coap_opt_value(option), etag, size) == 0) return 1;
  return 0;
}

static int has_option(const coap_pdu_t *request, coap_option_num_t number, unsigned *value) {
  coap_opt_iterator_t it;
  coap_opt_t *option = coap_check_option(request, number, &it);
  if (option == NULL) return 0;
  if (value != NULL) *value = coap_decode_var_bytes(coap_opt_value(option), coap_opt_length(option));
  return 1;
}

static void content(coap_resource_t *r, coap_session_t *s, const coap_pdu_t *q, const coap_string_t *query,
                    coap_pdu_t *p, uint16_t format, uint64_t etag, const uint8_t *data, size_t size) {
  coap_pdu_set_code(p, COAP_RESPONSE_CODE_CONTENT);
  coap_add_data_large_response(r, s, q, p, query, format, -1, etag, size, data, NULL, NULL);
}

#define HANDLER(name) \
  static void name(coap_resource_t *r, coap_session_t *s, const coap_pdu_t *q, const coap_string_t *query, coap_pdu_t *p)

HANDLER(get_small) { content(r, s, q, query, p, 0, 0, (const uint8_t *)SMALL, sizeof SMALL - 1); }
HANDLER(get_large) { content(r, s, q, query, p, 42, 0x1001, large, sizeof large); }
HANDLER(get_reading) { content(r, s, q, query, p, 18, 0, reading, sizeof reading); }

HANDLER(get_obs) {
  char text[32];
  int size = snprintf(text, sizeof text, "tick %u", ticks);
  (void)r, (void)s, (void)q, (void)query;
  coap_pdu_set_code(p, COAP_RESPONSE_CODE_CONTENT);
  coap_add_data(p, (size_t)size, (const uint8_t *)text);
}

HANDLER(get_obs_large) {
  fill(obs_large, sizeof obs_large, large_ticks & 255);
  content(r, s, q, query, p, 42, 0x2000 + large_ticks, obs_large, sizeof obs_large);
}

HANDLER(get_slow) {
  coap_bin_const_t token = coap_pdu_get_token(q);
  coap_async_t *async = coap_find_async(s, token);
  if (async == NULL) {
    coap_register_async(s, q, COAP_TICKS_PER_SECOND / 2);
    return; /* code 0: libcoap sends the empty acknowledgement and calls again after the delay */
  }
  content(r, s, q, query, p, 0, 0, (const uint8_t *)"late", 4);
}

HANDLER(get_store) { content(r, s, q, query, p, 42, 0, store, store_size); }

HANDLER(put_store) {
  size_t size = 0, offset = 0, total = 0;
  const uint8_t *data = NULL;
  (void)r, (void)s, (void)query;
  coap_get_data_large(q, &size, &data, &offset, &total);
  if (size > sizeof store || size != total) {
    coap_pdu_set_code(p, COAP_RESPONSE_CODE_INTERNAL_ERROR);
    return;
  }
  memcpy(store, data, size);
  store_size = size;
  coap_pdu_set_code(p, COAP_RESPONSE_CODE_CHANGED);
}

HANDLER(get_etag) {
  static const uint8_t tag[] = {0x65, 0x30, 0x31};
  (void)r, (void)s, (void)query;
  int same = has_etag(q, COAP_OPTION_ETAG, tag, sizeof tag);
  coap_pdu_set_code(p, same ? COAP_RESPONSE_CODE_VALID : COAP_RESPONSE_CODE_CONTENT);
  coap_add_option(p, COAP_OPTION_ETAG, sizeof tag, tag);
  if (!same) coap_add_data(p, 11, (const uint8_t *)"tagged body");
}

HANDLER(get_accept) {
  unsigned accept = 0;
  if (has_option(q, COAP_OPTION_ACCEPT, &accept) && accept != 0) {
    coap_pdu_set_code(p, COAP_RESPONSE_CODE_NOT_ACCEPTABLE);
    return;
  }
  content(r, s, q, query, p, 0, 0, (const uint8_t *)"plain", 5);
}

HANDLER(put_ifmatch) {
  static const uint8_t tag[] = {0x65, 0x30, 0x32};
  (void)r, (void)s, (void)query;
  int failed = has_option(q, COAP_OPTION_IF_NONE_MATCH, NULL) ||
               (has_option(q, COAP_OPTION_IF_MATCH, NULL) && !has_etag(q, COAP_OPTION_IF_MATCH, tag, sizeof tag));
  coap_pdu_set_code(p, failed ? COAP_RESPONSE_CODE_PRECONDITION_FAILED : COAP_RESPONSE_CODE_CHANGED);
}

static coap_resource_t *serve(coap_context_t *context, const char *path, coap_method_handler_t get,
                              coap_method_handler_t put) {
  coap_resource_t *resource = coap_resource_init(coap_make_str_const(path), COAP_RESOURCE_FLAGS_NOTIFY_NON);
  if (get != NULL) coap_register_handler(resource, COAP_REQUEST_GET, get);
  if (put != NULL) {
    coap_register_handler(resource, COAP_REQUEST_PUT, put);
    coap_register_handler(resource, COAP_REQUEST_POST, put);
  }
  coap_add_resource(context, resource);
  return resource;
}

static int run_server(const char *host, const char *port) {
  coap_address_t address;
  coap_context_t *context = coap_new_context(NULL);
  coap_tick_t now, next_tick, next_large;
  resolve(host, port, &address);
  coap_context_set_block_mode(context, COAP_BLOCK_USE_LIBCOAP | COAP_BLOCK_SINGLE_BODY);
  if (coap_new_endpoint(context, &address, COAP_PROTO_UDP) == NULL) {
    fprintf(stderr, "cannot listen on %s %s\n", host, port);
    return 2;
  }
  fill(large, sizeof large, 1);
  fill(reading, sizeof reading, 3);
  serve(context, "small", get_small, NULL);
  serve(context, "large", get_large, NULL);
  serve(context, "reading", get_reading, NULL);
  serve(context, "slow", get_slow, NULL);
  serve(context, "store", get_store, put_store);
  serve(context, "etag", get_etag, NULL);
  serve(context, "accept", get_accept, NULL);
  serve(context, "ifmatch", NULL, put_ifmatch);
  serve(context, "critical", get_small, NULL);
  obs_resource = serve(context, "obs", get_obs, NULL);
  obs_large_resource = serve(context, "obslarge", get_obs_large, NULL);
  coap_resource_set_get_observable(obs_resource, 1);
  coap_resource_set_get_observable(obs_large_resource, 1);
  printf("{\"ready\":true,\"port\":%s}\n", port);
  fflush(stdout);
  coap_ticks(&now);
  next_tick = next_large = now;
  for (;;) {
    /* the resources tick every 50 ms and 400 ms; standard input is looked at with them, not per datagram */
    coap_io_process(context, 20);
    coap_ticks(&now);
    if (now >= next_tick) {
      if (stdin_ended()) break;
      next_tick = now + COAP_TICKS_PER_SECOND / 20;
      ticks++;
      coap_resource_notify_observers(obs_resource, NULL);
    }
    if (now >= next_large) {
      next_large = now + COAP_TICKS_PER_SECOND * 2 / 5;
      large_ticks++;
      coap_resource_notify_observers(obs_large_resource, NULL);
    }
  }
  coap_free_context(context);
  return 0;
}

/* ---------------------------------------------------------------- client */

static struct {
  int done, observing, wanted, got, cancel_by_rst, cancelled;
  uint8_t token[8];
  size_t token_size;
} run;

static char *field(char *line, const char *name, char *out, size_t size) {
  char *at = line;
  size_t n = strlen(name);
  while ((at = strstr(at, name)) != NULL) {
    if (at > line && at[-1] == ' ' && at[n] == '=') {
      size_t length = strcspn(at + n + 1, " \n");
      snprintf(out, size, "%.*s", (int)length, at + n + 1);
      return out;
    }
    at += n;
  }
  return NULL;
}

static void print_outcome(const coap_pdu_t *pdu) {
  size_t size = 0, offset = 0, total = 0;
  const uint8_t *data = NULL;
  coap_opt_iterator_t it;
  coap_opt_t *option;
  coap_pdu_code_t code = coap_pdu_get_code(pdu);
  coap_get_data_large(pdu, &size, &data, &offset, &total);
  printf("\"code\":\"%d.%02d\",\"payload\":\"", code >> 5, code & 31);
  for (size_t i = 0; i < size; i++) printf("%02x", data[i]);
  printf("\"");
  if ((option = coap_check_option(pdu, COAP_OPTION_ETAG, &it)) != NULL) {
    printf(",\"etag\":\"");
    for (size_t i = 0; i < coap_opt_length(option); i++) printf("%02x", coap_opt_value(option)[i]);
    printf("\"");
  }
  if ((option = coap_check_option(pdu, COAP_OPTION_CONTENT_FORMAT, &it)) != NULL)
    printf(",\"format\":%u", coap_decode_var_bytes(coap_opt_value(option), coap_opt_length(option)));
}

static coap_response_t on_response(coap_session_t *session, const coap_pdu_t *sent, const coap_pdu_t *received,
                                   const coap_mid_t mid) {
  coap_opt_iterator_t it;
  (void)session, (void)sent, (void)mid;
  if (!run.observing) {
    if (run.done) return COAP_RESPONSE_OK;
    print_outcome(received);
    run.done = 1;
    return COAP_RESPONSE_OK;
  }
  if (run.got >= run.wanted) {
    if (!run.cancel_by_rst) {
      run.done = run.cancelled;
      return COAP_RESPONSE_OK;
    }
    run.done = 1;
    return COAP_RESPONSE_FAIL; /* libcoap sends the RST */
  }
  printf("%s{", run.got == 0 ? "" : ",");
  print_outcome(received);
  printf(",\"observe\":%s}", coap_check_option(received, COAP_OPTION_OBSERVE, &it) != NULL ? "true" : "false");
  run.got++;
  return COAP_RESPONSE_OK;
}

static void on_nack(coap_session_t *session, const coap_pdu_t *sent, const coap_nack_reason_t reason,
                    const coap_mid_t mid) {
  (void)session, (void)sent, (void)mid;
  if (run.done) return;
  if (run.observing) return;
  printf("\"error\":\"%s\"", reason == COAP_NACK_RST ? "reset" : "no answer");
  run.done = 1;
}

static size_t unhex(const char *text, uint8_t *out, size_t size) {
  size_t n = strlen(text) / 2;
  for (size_t i = 0; i < n && i < size; i++) {
    unsigned octet = 0;
    sscanf(text + 2 * i, "%2x", &octet);
    out[i] = (uint8_t)octet;
  }
  return n;
}

static void add_uint(coap_optlist_t **options, unsigned number, unsigned value) {
  uint8_t buffer[4];
  coap_insert_optlist(options, coap_new_optlist((uint16_t)number, coap_encode_var_safe(buffer, sizeof buffer, value), buffer));
}

static void command(coap_context_t *context, coap_session_t *session, char *line) {
  static uint8_t body[MAX_BODY];
  char value[256], method[16] = "GET", path[128] = "/";
  coap_optlist_t *options = NULL;
  uint8_t bytes[16], token[8];
  size_t token_size;
  int observing = strncmp(line, "observe ", 8) == 0;
  field(line, "method", method, sizeof method);
  field(line, "path", path, sizeof path);
  coap_request_t code = strcmp(method, "PUT") == 0 ? COAP_REQUEST_PUT : strcmp(method, "POST") == 0 ? COAP_REQUEST_POST : COAP_REQUEST_GET;
  int non = field(line, "type", value, sizeof value) != NULL && strcmp(value, "NON") == 0;
  coap_pdu_t *pdu = coap_pdu_init(non ? COAP_MESSAGE_NON : COAP_MESSAGE_CON, (coap_pdu_code_t)code, coap_new_message_id(session),
                                  coap_session_max_pdu_size(session));
  coap_session_new_token(session, &token_size, token);
  coap_add_token(pdu, token_size, token);
  memset(&run, 0, sizeof run);
  run.observing = observing;
  run.token_size = token_size;
  memcpy(run.token, token, token_size);
  if (observing) {
    run.wanted = field(line, "count", value, sizeof value) ? atoi(value) : 1;
    run.cancel_by_rst = field(line, "cancel", value, sizeof value) != NULL && strcmp(value, "rst") == 0;
    add_uint(&options, COAP_OPTION_OBSERVE, COAP_OBSERVE_ESTABLISH);
  }
  coap_insert_optlist(&options, coap_new_optlist(COAP_OPTION_URI_PATH, strlen(path) - 1, (const uint8_t *)path + 1));
  if (field(line, "etag", value, sizeof value))
    coap_insert_optlist(&options, coap_new_optlist(COAP_OPTION_ETAG, unhex(value, bytes, sizeof bytes), bytes));
  if (field(line, "ifmatch", value, sizeof value))
    coap_insert_optlist(&options, coap_new_optlist(COAP_OPTION_IF_MATCH, unhex(value, bytes, sizeof bytes), bytes));
  if (field(line, "ifnonematch", value, sizeof value))
    coap_insert_optlist(&options, coap_new_optlist(COAP_OPTION_IF_NONE_MATCH, 0, NULL));
  if (field(line, "accept", value, sizeof value)) add_uint(&options, COAP_OPTION_ACCEPT, (unsigned)atoi(value));
  if (field(line, "format", value, sizeof value)) add_uint(&options, COAP_OPTION_CONTENT_FORMAT, (unsigned)atoi(value));
  if (field(line, "critical", value, sizeof value))
    coap_insert_optlist(&options, coap_new_optlist((uint16_t)atoi(value), 1, (const uint8_t *)"x"));
  coap_add_optlist_pdu(pdu, &options);
  coap_delete_optlist(options);
  if (field(line, "size", value, sizeof value)) {
    size_t size = (size_t)atoi(value);
    char seed[16] = "0";
    field(line, "seed", seed, sizeof seed);
    fill(body, size, (unsigned)atoi(seed));
    coap_add_data_large_request(session, pdu, size, body, NULL, NULL);
  }
  field(line, "id", value, sizeof value);
  printf("{\"id\":%s,%s", value, observing ? "\"notifications\":[" : "");
  coap_tick_t now, end;
  coap_ticks(&now);
  end = now + 8 * COAP_TICKS_PER_SECOND;
  coap_send(session, pdu);
  while (!run.done && now < end) {
    coap_io_process(context, 50);
    coap_ticks(&now);
    if (observing && run.got >= run.wanted && !run.cancel_by_rst && !run.cancelled) {
      coap_binary_t cancelled = {.length = run.token_size, .s = run.token};
      run.cancelled = 1;
      coap_cancel_observe(session, &cancelled, COAP_MESSAGE_CON);
    }
  }
  if (observing) printf("]");
  else if (!run.done) printf("\"error\":\"no answer\"");
  printf("}\n");
  fflush(stdout);
}

static int run_client(const char *host, const char *port) {
  coap_address_t address;
  coap_context_t *context = coap_new_context(NULL);
  char line[1024];
  resolve(host, port, &address);
  coap_context_set_block_mode(context, COAP_BLOCK_USE_LIBCOAP | COAP_BLOCK_SINGLE_BODY);
  coap_session_t *session = coap_new_client_session(context, NULL, &address, COAP_PROTO_UDP);
  coap_register_response_handler(context, on_response);
  coap_register_nack_handler(context, on_nack);
  for (;;) {
    /* wait for the next command with the socket alive: late messages still get their answer */
    fd_set set;
    struct timeval now = {0, 0};
    FD_ZERO(&set);
    FD_SET(0, &set);
    if (select(1, &set, NULL, NULL, &now) > 0) {
      if (fgets(line, sizeof line, stdin) == NULL) break;
      command(context, session, line);
    } else {
      coap_io_process(context, 20);
    }
  }
  coap_free_context(context);
  return 0;
}

int main(int argc, char **argv) {
  setvbuf(stdin, NULL, _IONBF, 0);
  coap_startup();
  coap_set_log_level(LOG_ERR);
  if (argc == 4 && strcmp(argv[1], "server") == 0) return run_server(argv[2], argv[3]);
  if (argc == 4 && strcmp(argv[1], "client") == 0) return run_client(argv[2], argv[3]);
  if (argc == 2 && strcmp(argv[1], "version") == 0) {
    printf("{\"name\":\"libcoap\",\"version\":\"%s\"}\n", coap_package_version());
    return 0;
  }
  fprintf(stderr, "usage: peer server|client HOST PORT\n");
  return 2;
}
