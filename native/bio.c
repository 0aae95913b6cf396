/* A BIO that keeps the borders of datagrams (a memory BIO does not), and the queues behind it. */
#include "dtls.h"
#include <stdlib.h>
#include <string.h>

/*
 * Appends to the last datagram where both fit into `coalesce` octets, else begins a new one: OpenSSL retransmits
 * record by record, and each datagram fewer is a chance of loss fewer.
 */
int push(struct queue *queue, const void *data, size_t length, size_t coalesce) {
  struct packet *last = queue->tail;
  if (last != NULL && last->length + length <= coalesce && last->length + length <= last->room) {
    memcpy(last->data + last->length, data, length);
    last->length += length;
    return 1;
  }
  size_t room = length > coalesce ? length : coalesce;
  struct packet *packet = malloc(sizeof *packet + room);
  if (packet == NULL) return 0;
  packet->next = NULL;
  packet->length = length;
  packet->room = room;
  memcpy(packet->data, data, length);
  if (last == NULL) queue->head = packet;
  else last->next = packet;
  queue->tail = packet;
  return 1;
}

/* The first datagram as a Buffer, or undefined. */
napi_value shift(napi_env env, struct queue *queue) {
  struct packet *packet = queue->head;
  napi_value buffer = NULL;
  if (packet == NULL) return NULL;
  if (napi_create_buffer_copy(env, packet->length, packet->data, NULL, &buffer) != napi_ok) return NULL;
  queue->head = packet->next;
  if (queue->head == NULL) queue->tail = NULL;
  free(packet);
  return buffer;
}

void drop(struct queue *queue) {
  while (queue->head != NULL) {
    struct packet *next = queue->head->next;
    free(queue->head);
    queue->head = next;
  }
  queue->tail = NULL;
}

uint64_t record_number(const unsigned char *record) {
  uint64_t number = 0;
  for (int octet = 5; octet <= 10; octet++) number = number << 8 | record[octet];
  return number;
}

/*
 * RFC 6347 §4.2.1: the server's records after the cookie exchange go on from the record number of the hello that brought
 * the cookie. DTLSv1_listen of OpenSSL 3.2 to 3.6 lets them begin at 1 (openssl/openssl#32063): after a lost hello or
 * HelloVerifyRequest that number has been used, and the client drops ServerHello or alert as a repetition. So they are
 * moved up by what is missing, all by the same. Numbers of epoch 0 are under no MAC and in no transcript; the protected
 * epochs count from 0 again (§4.1) and are left alone, and so are versions of OpenSSL that number rightly.
 */
static void renumber(struct association *a, unsigned char *records, size_t length) {
  for (size_t at = 0; length - at >= RECORD_HEADER;) {
    unsigned char *record = records + at;
    size_t next = RECORD_HEADER + ((size_t)record[11] << 8 | record[12]);
    if (record[3] == 0 && record[4] == 0) {
      uint64_t number = record_number(record);
      if (a->answers > number) a->ahead = a->answers - number;
      a->answers = 0;
      number += a->ahead;
      for (int octet = 10; octet >= 5; octet--, number >>= 8) record[octet] = (unsigned char)number;
    }
    if (next > length - at) return;
    at += next;
  }
}

static int datagram_write(BIO *bio, const char *data, int length) {
  struct association *a = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (length <= 0) return 0;
  if (!push(&a->outgoing, data, (size_t)length, a->mtu)) return -1;
  struct packet *last = a->outgoing.tail;
  renumber(a, last->data + last->length - length, (size_t)length);
  return length;
}

/* One datagram per call of ours; what does not fit the reader is cut off, as UDP does. */
static int datagram_read(BIO *bio, char *data, int room) {
  struct association *a = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (a->in == NULL || room <= 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t length = a->in_length < (size_t)room ? a->in_length : (size_t)room;
  memcpy(data, a->in, length);
  if (!a->peek) a->in = NULL;
  return (int)length;
}

static long datagram_ctrl(BIO *bio, int command, long number, void *pointer) {
  struct association *a = BIO_get_data(bio);
  (void)pointer;
  switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
      return 1;
    case BIO_CTRL_DGRAM_SET_PEEK_MODE:
      a->peek = number != 0;
      return 1;
    case BIO_CTRL_PENDING:
      return a->in == NULL ? 0 : (long)a->in_length;
    case BIO_CTRL_DGRAM_QUERY_MTU:
    case BIO_CTRL_DGRAM_GET_MTU:
    case BIO_CTRL_DGRAM_GET_FALLBACK_MTU:
      return (long)a->mtu;
    case BIO_CTRL_DGRAM_SET_MTU:
      return number;
    default:
      return 0;
  }
}

static int datagram_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

BIO_METHOD *new_datagram_method(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "datagrams");
  if (method == NULL) return NULL;
  BIO_meth_set_create(method, datagram_create);
  BIO_meth_set_write(method, datagram_write);
  BIO_meth_set_read(method, datagram_read);
  BIO_meth_set_ctrl(method, datagram_ctrl);
  return method;
}
