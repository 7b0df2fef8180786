/* The OpenMP functions that generated kernels call, on POSIX threads, whose hand-overs ThreadSanitizer understands.
 *
 * Shares of a loop are fixed: a lock around what is next would order the threads, and hide races between them. */
#include <pthread.h>
#include <stdlib.h>

typedef struct {
    void (*body)(void*);
    void* data;
    pthread_barrier_t* all;
    int index, count;
    long next, end, chunk;
} Part;

static __thread Part* current;
#define LOCAL __attribute__((visibility("hidden")))

static void* work(void* given) {
    current = given;
    current->body(current->data);
    return NULL;
}

static void share(Part* part, long start, long end, long chunk) {
    part->next = start + part->index * chunk;
    part->end = end;
    part->chunk = chunk;
}

static _Bool take(long* first, long* last) {
    Part* part = current;
    if (part->next >= part->end) return 0;
    *first = part->next;
    *last = part->next + part->chunk < part->end ? part->next + part->chunk : part->end;
    part->next += part->count * part->chunk;
    return 1;
}

static void parallel(void (*body)(void*), void* data, unsigned threads, long start, long end, long chunk) {
    unsigned count = threads ? threads : 1;
    pthread_barrier_t all;
    pthread_barrier_init(&all, NULL, count);
    Part* parts = calloc(count, sizeof(Part));
    pthread_t* handles = calloc(count, sizeof(pthread_t));
    Part* before = current;
    for (unsigned k = 0; k < count; ++k) {
        parts[k] = (Part){.body = body, .data = data, .all = &all, .index = (int)k, .count = (int)count};
        share(&parts[k], start, end, chunk);
    }
    for (unsigned k = 1; k < count; ++k) pthread_create(&handles[k], NULL, work, &parts[k]);
    work(&parts[0]);
    for (unsigned k = 1; k < count; ++k) pthread_join(handles[k], NULL);
    current = before;
    pthread_barrier_destroy(&all);
    free(parts);
    free(handles);
}

LOCAL void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) {
    (void)flags;
    parallel(body, data, threads, 0, 0, 1);
}

LOCAL void GOMP_parallel_loop_nonmonotonic_dynamic(void (*body)(void*), void* data, unsigned threads, long start,
                                                   long end, long step, long chunk, unsigned flags) {
    (void)flags;
    parallel(body, data, threads, start, end, chunk * step);
}

LOCAL _Bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long chunk, long* first, long* last) {
    share(current, start, end, chunk * step);
    return take(first, last);
}

LOCAL _Bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) { return take(first, last); }

LOCAL void GOMP_barrier(void) { pthread_barrier_wait(current->all); }

LOCAL void GOMP_loop_end(void) { GOMP_barrier(); }

LOCAL void GOMP_loop_end_nowait(void) {}

LOCAL _Bool GOMP_single_start(void) { return current->index == 0; }

LOCAL int omp_get_thread_num(void) { return current ? current->index : 0; }

LOCAL int omp_get_num_threads(void) { return current ? current->count : 1; }
