// SPDX-License-Identifier: Apache-2.0
// Preloaded into a server (LD_PRELOAD): it hears of the clients' readers of responses LATE_MS milliseconds late. Datagrams that
// announce one of the node's services ("rr/ask...", "rr/mobilevlm/...") are lost until that long after the first one of the same
// participant. Not those of the client's own services: DDS delivers announcements in order, so the requests would be late too.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { HEADER = 20, PREFIX = 8, PREFIX_LENGTH = 12, MOST = 1024 };

static struct {
  unsigned char prefix[PREFIX_LENGTH];
  double first;
} participants[MOST];
static int known = 0;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

static int is_lost(const unsigned char *bytes, ssize_t length) {
  if (length < HEADER || memcmp(bytes, "RTPS", 4)) return 0;
  if (!memmem(bytes, length, "rr/ask", 6) && !memmem(bytes, length, "rr/mobilevlm/", 13)) return 0;
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < known && memcmp(participants[i].prefix, bytes + PREFIX, PREFIX_LENGTH)) i++;
  if (i == known && known < MOST) {
    memcpy(participants[i].prefix, bytes + PREFIX, PREFIX_LENGTH);
    participants[i].first = milliseconds();
    known++;
  }
  int lost = i < known && milliseconds() - participants[i].first < atof(getenv("LATE_MS"));
  pthread_mutex_unlock(&lock);
  return lost;
}

ssize_t recvmsg(int socket, struct msghdr *message, int flags) {
  ssize_t (*next)(int, struct msghdr *, int) = dlsym(RTLD_NEXT, "recvmsg");
  for (;;) {
    ssize_t length = next(socket, message, flags);
    if (length <= 0 || !is_lost(message->msg_iov[0].iov_base, length)) return length;
  }
}

ssize_t recvfrom(int socket, void *buffer, size_t size, int flags, struct sockaddr *from, socklen_t *from_size) {
  ssize_t (*next)(int, void *, size_t, int, struct sockaddr *, socklen_t *) = dlsym(RTLD_NEXT, "recvfrom");
  for (;;) {
    ssize_t length = next(socket, buffer, size, flags, from, from_size);
    if (length <= 0 || !is_lost(buffer, length)) return length;
  }
}
