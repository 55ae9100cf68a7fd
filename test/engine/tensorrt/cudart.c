// SPDX-License-Identifier: Apache-2.0
// A CUDA runtime without a GPU: device memory is host memory, and the signatures are CUDA's own.
// Fresh memory holds NaN (0xFF), so that whoever reads what nobody wrote is found out.
#include <stdlib.h>
#include <string.h>

typedef void (*hook)(void *);
static int live, capturing, gpus = 1, fail_code;
static const char *fail_name = "";
static size_t used, limit = (size_t)1 << 40;
static hook on_begin, on_end, on_launch;

void stand_in_hooks(hook begin, hook end, hook launch) { on_begin = begin; on_end = end; on_launch = launch; }
void stand_in_limit(size_t bytes) { limit = bytes; }
void stand_in_gpus(int count) { gpus = count; }
void stand_in_fail(const char *name, int code) { fail_name = name; fail_code = code; }
int stand_in_live(void) { return live; }
size_t stand_in_used(void) { return used; }
int stand_in_capturing(void) { return capturing; }

#define CHECK if (fail_code && !strcmp(fail_name, __func__)) return fail_code
#define NOT_RECORDED if (capturing) return 900 // cudaErrorStreamCaptureUnsupported

int cudaGetLastError(void) { return 0; }
const char *cudaGetErrorString(int code) { return code == 2 ? "out of memory" : "an error"; }
int cudaGetDeviceCount(int *count) { CHECK; *count = gpus; return gpus ? 0 : 100; }
int cudaSetDevice(int device) { CHECK; return device < gpus ? 0 : 101; }
int cudaMemGetInfo(size_t *free_, size_t *total) { CHECK; *free_ = limit - used; *total = limit; return 0; }

static int take(void **pointer, size_t size) {
  if (used + size > limit) return 2;
  size_t whole = (size + 255) / 256 * 256;
  char *memory = aligned_alloc(256, whole + 256);
  memcpy(memory, &size, sizeof size); // the header keeps the size for the count
  memset(memory + 256, 0xFF, whole);
  *pointer = memory + 256;
  used += size;
  live++;
  return 0;
}
static int give(void *pointer) {
  size_t size;
  if (!pointer) return 0;
  memcpy(&size, (char *)pointer - 256, sizeof size);
  used -= size;
  live--;
  free((char *)pointer - 256);
  return 0;
}
int cudaMalloc(void **pointer, size_t size) { CHECK; NOT_RECORDED; return take(pointer, size); }
int cudaMallocHost(void **pointer, size_t size) { CHECK; NOT_RECORDED; return take(pointer, size); }
int cudaFree(void *pointer) { CHECK; return give(pointer); }
int cudaFreeHost(void *pointer) { CHECK; return give(pointer); }

int cudaMemsetAsync(void *to, int value, size_t size, void *stream) {
  CHECK; NOT_RECORDED; memset(to, value, size); return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  CHECK; NOT_RECORDED;
  if (kind != 4) return 21; // cudaErrorInvalidMemcpyDirection
  memcpy(to, from, size); return 0;
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t pitch, size_t width, size_t rows,
                      int kind, void *stream) {
  CHECK; NOT_RECORDED;
  if (width > to_pitch || width > pitch) return 12; // cudaErrorInvalidPitchValue
  for (size_t i = 0; i < rows; i++) memcpy((char *)to + i * to_pitch, (const char *)from + i * pitch, width);
  return 0;
}

int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
  CHECK; *stream = (void *)(size_t)0x7f0000000001; return flags == 1 ? 0 : 1; // needs all 64 bits
}
int cudaStreamSynchronize(void *stream) { CHECK; NOT_RECORDED; return 0; }
int cudaStreamDestroy(void *stream) { CHECK; return 0; }
int cudaStreamBeginCapture(void *stream, int mode) {
  CHECK; capturing = 1; if (on_begin) on_begin(stream); return mode == 1 ? 0 : 1;
}
int cudaStreamEndCapture(void *stream, void **graph) {
  capturing = 0; CHECK;
  int *number = malloc(sizeof *number);
  live++;
  if (on_end) on_end(number);
  *graph = number;
  return 0;
}
int cudaGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  CHECK; *executable = graph; live++; return flags ? 1 : 0;
}
int cudaGraphLaunch(void *executable, void *stream) { CHECK; if (on_launch) on_launch(executable); return 0; }
int cudaGraphDestroy(void *graph) { CHECK; live--; return 0; }
int cudaGraphExecDestroy(void *executable) { CHECK; live--; return 0; }
