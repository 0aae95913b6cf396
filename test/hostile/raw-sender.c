/* Sends IPv4 UDP datagrams with any source address and port, port 0 included.
 *
 *   raw-sender RATE       datagrams per second; 0: as fast as it goes
 *
 * Standard input: records of 14 octets (source address, source port, destination address, destination port, length of
 * the payload; network byte order) and the payload. It ends when standard input ends, and prints how many it sent.
 * For the hostile suite, inside a network namespace of its own: it refuses any destination but 10.98.0.1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32

static int read_all(uint8_t *out, size_t size) {
  size_t got = 0;
  while (got < size) {
    ssize_t n = read(0, out + got, size - got);
    if (n == 0) return 0;
    if (n < 0) {
      if (errno == EINTR) continue;
      return 0;
    }
    got += (size_t)n;
  }
  return 1;
}

int main(int argc, char **argv) {
  long rate = argc > 1 ? atol(argv[1]) : 0;
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (raw < 0) {
    perror("raw socket");
    return 2;
  }
  uint8_t head[14], packet[sizeof(struct iphdr) + sizeof(struct udphdr) + 65536];
  struct iphdr *ip = (struct iphdr *)packet;
  struct udphdr *udp = (struct udphdr *)(packet + sizeof *ip);
  unsigned long sent = 0;
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  while (read_all(head, sizeof head)) {
    uint16_t length;
    uint32_t source, destination;
    memcpy(&source, head, 4);
    memcpy(&destination, head + 6, 4);
    memcpy(&length, head + 12, 2);
    length = ntohs(length);
    if (ntohl(destination) != 0x0a620001) {
      fprintf(stderr, "refused: the destination is not 10.98.0.1\n");
      return 2;
    }
    if (!read_all(packet + sizeof *ip + sizeof *udp, length)) break;
    memset(packet, 0, sizeof *ip + sizeof *udp);
    ip->version = 4;
    ip->ihl = 5;
    ip->ttl = 64;
    ip->protocol = IPPROTO_UDP;
    ip->saddr = source;
    ip->daddr = destination;
    memcpy(&udp->source, head + 4, 2);
    memcpy(&udp->dest, head + 10, 2);
    udp->len = htons((uint16_t)(sizeof *udp + length)); /* a checksum of 0 means none (RFC 768) */
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = destination};
    size_t size = sizeof *ip + sizeof *udp + length;
    while (sendto(raw, packet, size, 0, (struct sockaddr *)&to, sizeof to) < 0 && (errno == ENOBUFS || errno == EINTR)) usleep(200);
    sent++;
    if (rate > 0 && sent % BATCH == 0) {
      next.tv_nsec += (long)(BATCH * 1000000000L / rate);
      while (next.tv_nsec >= 1000000000L) next.tv_nsec -= 1000000000L, next.tv_sec++;
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
  }
  printf("%lu\n", sent);
  return 0;
}
