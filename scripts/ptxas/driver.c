/* A CUDA driver without a GPU, for scripts/ptxas-check: it accepts everything, computes nothing, keeps the
 * images it is given, and notes with what shared memory and how many threads kernels are launched.
 *
 *   STUNET_PTX_ARCH   what it poses as: 80, 89, 90
 *   STUNET_PTX_OUT    folder for NUMBER.ptx and launches.txt (kernel, threads, bytes of shared memory)
 *
 * Every value that is read back is 3.0f, which is what the trial of a device asks for.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

typedef int result;
typedef unsigned long long pointer;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pointer next_address = 1ull << 40;
static int images = 0;
static FILE *launches = NULL;
static unsigned long long launched = 0;

struct function { char name[512]; unsigned threads, shared; };

static int arch(void) { const char *text = getenv("STUNET_PTX_ARCH"); return text ? atoi(text) : 80; }
static const char *out(void) { const char *text = getenv("STUNET_PTX_OUT"); return text ? text : "."; }

result cuInit(unsigned flags) { (void)flags; return 0; }
result cuDriverGetVersion(int *version) { *version = 13000; return 0; }
result cuDeviceGetCount(int *count) { *count = 1; return 0; }
result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : 0; }
result cuDeviceGetName(char *name, int length, int device) {
    (void)device; snprintf(name, length, "no GPU, posing as sm_%d", arch()); return 0;
}
result cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)96 << 30; return 0; }
result cuDeviceGetPCIBusId(char *id, int length, int device) {
    (void)device; snprintf(id, length, "0000:01:00.0"); return 0;
}
result cuDeviceGetLuid(char *luid, unsigned *mask, int device) { (void)luid; (void)mask; (void)device; return 801; }
result cuDeviceGetUuid(void *uuid, int device) { (void)device; memset(uuid, 1, 16); return 0; }
result cuDeviceGetUuid_v2(void *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
result cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
        case 1: *value = 1024; break;                      /* threads of a block */
        case 2: case 3: *value = 1024; break;              /* its x and y */
        case 4: *value = 64; break;
        case 5: *value = 2147483647; break;                /* blocks */
        case 6: case 7: *value = 65535; break;
        case 8: *value = 49152; break;                     /* shared memory */
        case 10: *value = 32; break;                       /* threads of a warp */
        case 12: *value = 65536; break;                    /* registers */
        case 16: *value = 108; break;                      /* multiprocessors */
        case 75: *value = arch() / 10; break;
        case 76: *value = arch() % 10; break;
        case 97: *value = arch() == 89 ? 101376 : 166912; break; /* shared memory on request */
        default: *value = 1;
    }
    return 0;
}
result cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &lock; return 0; }
result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return 0; }
result cuCtxSetCurrent(void *context) { (void)context; return 0; }
result cuCtxGetCurrent(void **context) { *context = &lock; return 0; }
result cuCtxSynchronize(void) { return 0; }
result cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }

result cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = malloc(8); return 0; }
result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    (void)priority; return cuStreamCreate(stream, flags);
}
result cuStreamDestroy_v2(void *stream) { free(stream); return 0; }
result cuStreamSynchronize(void *stream) { (void)stream; return 0; }
result cuStreamQuery(void *stream) { (void)stream; return 0; }
result cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream; (void)event; (void)flags; return 0;
}
result cuEventCreate(void **event, unsigned flags) { (void)flags; *event = calloc(1, 8); return 0; }
result cuEventDestroy_v2(void *event) { free(event); return 0; }
/* Time is what launches took, five microseconds each: whoever measures until enough of it has passed comes to an end. */
result cuEventRecord(void *event, void *stream) {
    (void)stream;
    pthread_mutex_lock(&lock);
    *(unsigned long long *)event = launched;
    pthread_mutex_unlock(&lock);
    return 0;
}
result cuEventQuery(void *event) { (void)event; return 0; }
result cuEventSynchronize(void *event) { (void)event; return 0; }
result cuEventElapsedTime(float *ms, void *a, void *b) {
    *ms = 0.01f + 0.005f * (float)(*(unsigned long long *)b - *(unsigned long long *)a);
    return 0;
}
result cuEventElapsedTime_v2(float *ms, void *a, void *b) { return cuEventElapsedTime(ms, a, b); }

/* Addresses that nothing lies at. */
result cuMemAlloc_v2(pointer *address, size_t bytes) {
    pthread_mutex_lock(&lock);
    *address = next_address;
    next_address += (bytes + 4095) / 4096 * 4096;
    pthread_mutex_unlock(&lock);
    return 0;
}
result cuMemAllocAsync(pointer *address, size_t bytes, void *stream) {
    (void)stream; return cuMemAlloc_v2(address, bytes);
}
result cuMemFree_v2(pointer address) { (void)address; return 0; }
result cuMemFreeAsync(pointer address, void *stream) { (void)address; (void)stream; return 0; }
result cuMemGetInfo_v2(size_t *left, size_t *total) { *left = *total = (size_t)96 << 30; return 0; }
result cuMemAllocHost_v2(void **memory, size_t bytes) { *memory = malloc(bytes); return *memory ? 0 : 2; }
result cuMemFreeHost(void *memory) { free(memory); return 0; }

static void threes(void *to, size_t bytes) {
    float three = 3.0f;
    for (size_t at = 0; at + 4 <= bytes; at += 4) memcpy((char *)to + at, &three, 4);
}
result cuMemcpyHtoD_v2(pointer to, const void *from, size_t bytes) { (void)to; (void)from; (void)bytes; return 0; }
result cuMemcpyHtoDAsync_v2(pointer to, const void *from, size_t bytes, void *stream) {
    (void)stream; return cuMemcpyHtoD_v2(to, from, bytes);
}
result cuMemcpyDtoH_v2(void *to, pointer from, size_t bytes) { (void)from; threes(to, bytes); return 0; }
result cuMemcpyDtoHAsync_v2(void *to, pointer from, size_t bytes, void *stream) {
    (void)stream; return cuMemcpyDtoH_v2(to, from, bytes);
}
result cuMemcpyDtoDAsync_v2(pointer to, pointer from, size_t bytes, void *stream) {
    (void)to; (void)from; (void)bytes; (void)stream; return 0;
}
/* A copy of rows: the host is the second of the two sides, where it is a side. */
struct rows {
    size_t from_x, from_y; unsigned from_kind; const void *from_host; pointer from_device; void *from_array; size_t from_pitch;
    size_t to_x, to_y; unsigned to_kind; void *to_host; pointer to_device; void *to_array; size_t to_pitch;
    size_t width, height;
};
result cuMemcpy2DAsync_v2(const struct rows *copy, void *stream) {
    (void)stream;
    if (copy->to_kind == 1)
        for (size_t row = 0; row < copy->height; row++)
            threes((char *)copy->to_host + row * copy->to_pitch, copy->width);
    return 0;
}
result cuMemsetD8Async(pointer to, unsigned char value, size_t bytes, void *stream) {
    (void)to; (void)value; (void)bytes; (void)stream; return 0;
}

result cuModuleLoadData(void **module, const void *image) {
    char path[4096];
    pthread_mutex_lock(&lock);
    snprintf(path, sizeof path, "%s/%05d.ptx", out(), images++);
    FILE *file = fopen(path, "w");
    if (file) { fputs((const char *)image, file); fclose(file); }
    pthread_mutex_unlock(&lock);
    *module = malloc(8);
    return file ? 0 : 301;
}
result cuModuleLoadDataEx(void **module, const void *image, unsigned n, void *options, void **values) {
    (void)n; (void)options; (void)values; return cuModuleLoadData(module, image);
}
result cuModuleUnload(void *module) { free(module); return 0; }
result cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    struct function *found = calloc(1, sizeof *found);
    snprintf(found->name, sizeof found->name, "%s", name);
    *function = found;
    return 0;
}
result cuFuncSetAttribute(void *function, int attribute, int value) {
    (void)function; (void)attribute; (void)value; return 0;
}
result cuFuncGetAttribute(int *value, int attribute, void *function) {
    (void)attribute; (void)function; *value = 0; return 0;
}
result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z,
                      unsigned shared, void *stream, void **parameters, void **extra) {
    (void)gx; (void)gy; (void)gz; (void)stream; (void)parameters; (void)extra;
    pthread_mutex_lock(&lock);
    if (!launches) {
        char path[4096];
        snprintf(path, sizeof path, "%s/launches.txt", out());
        launches = fopen(path, "w");
    }
    launched++;
    struct function *this = function;
    if (launches && (this->threads != x * y * z || this->shared != shared)) {
        this->threads = x * y * z;
        this->shared = shared;
        fprintf(launches, "%s %u %u\n", this->name, this->threads, shared);
        fflush(launches);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}
result cuGetErrorString(result error, const char **text) { (void)error; *text = "no GPU"; return 0; }
result cuGetErrorName(result error, const char **text) { (void)error; *text = "NO_GPU"; return 0; }
