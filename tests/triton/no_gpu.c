/* A CUDA driver for tests: it loads and launches nothing, and writes down what it is asked to launch. */
#include <stddef.h>
#include <stdint.h>

enum { LAUNCHES = 256, WORDS = 32 };

typedef struct {
  unsigned grid[3], block[3], shared;
  void *stream;
} Config;

/* Of each launch: programs, threads, stream, then the first words of the arguments. */
uint64_t launched[LAUNCHES][3 + WORDS];
int launches = 0, words = 0;

static void note(unsigned programs, unsigned threads, void *stream, void **arguments) {
  uint64_t *to = launched[launches++ % LAUNCHES];
  to[0] = programs, to[1] = threads, to[2] = (uint64_t)stream;
  for (int k = 0; k < words; ++k)
    to[3 + k] = *(uint32_t *)arguments[k];
}

int cuLaunchKernelEx(const Config *c, void *function, void **arguments, void **extra) {
  note(c->grid[0], c->block[0], c->stream, arguments);
  return 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  note(x, threads, stream, arguments);
  return 0;
}

static int value(void *to, uint64_t what) {
  *(uint64_t *)to = what;
  return 0;
}

int cuInit(unsigned flags) { return 0; }
int cuGetErrorString(int error, const char **text) { *text = "no GPU"; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetAttribute(int *to, int attribute, int device) { *to = 227 << 10; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return value(context, 1); }
int cuCtxGetCurrent(void **context) { return value(context, 1); }
int cuCtxSetCurrent(void *context) { return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return 0; }
int cuCtxGetLimit(size_t *to, int limit) { return value(to, 0); }
int cuCtxSetLimit(int limit, size_t to) { return 0; }
int cuModuleLoadData(void **module, const void *image) { return value(module, 2); }
int cuModuleUnload(void *module) { return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return value(function, 3); }
int cuFuncGetAttribute(int *to, int attribute, void *function) { *to = attribute ? 0 : 1024; return 0; }
int cuFuncSetAttribute(void *function, int attribute, int to) { return 0; }
int cuFuncSetCacheConfig(void *function, int to) { return 0; }
int cuStreamIsCapturing(void *stream, int *to) { *to = 0; return 0; }
int cuOccupancyMaxActiveClusters(int *to, void *function, const void *config) { *to = 1; return 0; }
int cuTensorMapEncodeTiled(void) { return 1; }
int cuTensorMapEncodeIm2col(void) { return 1; }
int cuDriverGetVersion(int *to) { *to = 13000; return 0; }
int cuPointerGetAttribute(void *to, int attribute, uint64_t pointer) { return value(to, pointer); }
