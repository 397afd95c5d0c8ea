/*
 * Solon for C: a training worker joins a job, submits gradients and gets updates.
 *
 * Made from bindings/c/src by cbindgen; do not edit. `UPDATE=1 cargo test -p solon-c --test header` writes it.
 *
 *     solon_options options = SOLON_OPTIONS_INIT;
 *     solon_worker *worker;
 *     if (solon_join(&options, &worker) != SOLON_STATUS_OK) {
 *         fprintf(stderr, "%s\n", solon_last_error());
 *         return 1;
 *     }
 *     ... each step: compute the gradient of this group's samples ...
 *     solon_status status = solon_exchange(worker, gradient, length, NULL);
 *     ...
 *     solon_leave(worker);
 *
 * Results. Functions return a solon_status; anything but SOLON_STATUS_OK is an error, about which solon_last_error() says more.
 * Out-parameters are written only on success, except solon_report (see there). No function ends the process: a bug inside
 * comes back as SOLON_STATUS_PANICKED.
 *
 * Threads. A worker may be used in any thread, but in one at a time: a second call meanwhile returns SOLON_STATUS_BUSY and does
 * nothing. A worker must not be used after, or while, it is given to solon_leave or solon_worker_free. Different workers
 * are independent. The library has a thread of its own per worker; signal handlers of the program may run in it.
 *
 * Processes. A worker belongs to the process that joined. In a child made by fork() every function that is given it returns
 * SOLON_STATUS_FORKED at once; the parent is not disturbed. solon_join works in a child.
 *
 * Memory. The caller owns every buffer it gives; none is used after the call returns. What solon_join made goes back by
 * solon_leave or solon_worker_free. Texts that functions return belong to the library.
 *
 * Lengths are numbers of floats, never bytes.
 *
 * Growth. Structures begin with their size, which the caller sets: a program goes on working with a later library.
 */


#ifndef SOLON_H
#define SOLON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Numbers of 64 bits in a set of workers. */
#define SOLON_SET_NUMBERS 16

/** Is `worker` in `set`, one of the sets of a solon_report? */
#define SOLON_CONTAINS(set, worker) ((((set)[(worker) / 64u]) >> ((worker) % 64u)) & 1u)

/** What solon_options begins as: everything from the environment, or its default. */
#define SOLON_OPTIONS_INIT \
    { sizeof(solon_options), -1, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL }


/**
 * How a call ended. Later versions may have more; the numbers of these stay.
 */
typedef enum solon_status {
    /**
     * It did what it should.
     */
    SOLON_STATUS_OK = 0,
    /**
     * An argument cannot be: a null or misaligned pointer, a structure whose size was not set, a text that is not UTF-8.
     */
    SOLON_STATUS_INVALID_ARGUMENT = 1,
    /**
     * A buffer is not as long as the job's gradient. Nothing was sent.
     */
    SOLON_STATUS_WRONG_LENGTH = 2,
    /**
     * Endpoint or index were neither given nor found in the environment, or something found there cannot be read.
     */
    SOLON_STATUS_NOT_CONFIGURED = 3,
    /**
     * Nobody answers at the endpoint, or the handshake broke off. Trying again later can succeed.
     */
    SOLON_STATUS_NO_DAEMON = 4,
    /**
     * The daemon refuses for now: it stops, or this index joined less than a second ago. Try again.
     */
    SOLON_STATUS_TRY_AGAIN = 5,
    /**
     * The daemon refuses: another job's name, a wrong token, a way to travel that it does not take, or a worker that computes
     * differently than its group.
     */
    SOLON_STATUS_REFUSED = 6,
    /**
     * The job has no worker of this index.
     */
    SOLON_STATUS_NO_SUCH_WORKER = 7,
    /**
     * The peer is not solond, or is another version of it.
     */
    SOLON_STATUS_VERSION_MISMATCH = 8,
    /**
     * This worker is set to RDMA only, and it is not to be had.
     */
    SOLON_STATUS_NO_RDMA = 9,
    /**
     * The round did not end in the time of `round_timeout_ms`. It goes on: call solon_wait, also after solon_exchange.
     */
    SOLON_STATUS_TIMED_OUT = 10,
    /**
     * `interrupt` had the wait given up. The round goes on: call solon_wait, also after solon_exchange, or leave.
     */
    SOLON_STATUS_INTERRUPTED = 11,
    /**
     * The round has no update, for no worker: too few shards came in time, or too many lie. The buffer holds nothing of use. The
     * next round can go on.
     */
    SOLON_STATUS_UNDECODABLE = 12,
    /**
     * Too many rounds are submitted and not collected: solon_wait first.
     */
    SOLON_STATUS_WINDOW_FULL = 13,
    /**
     * The session is over: the daemon or the network is gone. solon_rejoin, or solon_leave.
     */
    SOLON_STATUS_LOST = 14,
    /**
     * This process was forked from the one that joined.
     */
    SOLON_STATUS_FORKED = 15,
    /**
     * The worker is in use by another call.
     */
    SOLON_STATUS_BUSY = 16,
    /**
     * The operating system gives no thread, event queue or random bytes.
     */
    SOLON_STATUS_SYSTEM = 17,
    /**
     * A bug in the library; the text says where. The worker can only be left or freed.
     */
    SOLON_STATUS_PANICKED = 18,
} solon_status;

/**
 * A worker in a job.
 */
typedef struct solon_worker solon_worker;

/**
 * How to join. Begin with `solon_options options = SOLON_OPTIONS_INIT;` and set what is not to be its default.
 */
typedef struct solon_options {
    /**
     * sizeof(solon_options); SOLON_OPTIONS_INIT sets it.
     */
    size_t size;
    /**
     * This worker's index in the job. -1: SOLON_WORKER, else the rank that torchrun (RANK, where LOCAL_RANK is set too), Slurm
     * (SLURM_PROCID) or Open MPI (OMPI_COMM_WORLD_RANK) gave this process.
     */
    int64_t worker;
    /**
     * Where solond listens, "host:port". NULL: SOLON_ENDPOINT.
     */
    const char *endpoint;
    /**
     * The job's name. NULL: SOLON_JOB, else "default".
     */
    const char *job;
    /**
     * This worker's token. NULL: SOLON_TOKEN, else none.
     */
    const char *token;
    /**
     * How shards and updates travel: "auto" (RDMA where there is any), "tcp" or "rdma". NULL: "auto".
     */
    const char *transport;
    /**
     * The RDMA devices that may be used, as in `rdma.devices` of solond. NULL: all.
     */
    const char *rdma_devices;
    /**
     * Where other workers reach this one, if not at the address that it reaches solond from. NULL: there.
     */
    const char *advertise;
    /**
     * The longest that solon_join and solon_rejoin take, in milliseconds. 0: 10 s.
     */
    uint32_t join_timeout_ms;
    /**
     * The longest that one call waits for a round, in milliseconds. 0: 10 minutes.
     */
    uint32_t round_timeout_ms;
    /**
     * 1: this worker has collected rounds before, up to `last_round`, as solon_last_collected said in an earlier process. 0: it begins.
     */
    uint32_t resume;
    /**
     * With `resume`: the last round that was collected.
     */
    uint64_t last_round;
    /**
     * With `resume`: its digest.
     */
    uint64_t last_digest;
    /**
     * If not NULL: called with `interrupt_argument` some twenty times a second while a call waits for a round, in the thread of that
     * call. If it returns true the call returns SOLON_STATUS_INTERRUPTED. It must return soon, must not throw or longjmp, and
     * must not use the worker that waits. It is not called by solon_join, solon_rejoin and solon_leave, which are bounded in time.
     */
    bool (*interrupt)(void*);
    /**
     * Given to `interrupt`. What it points to must live as long as the worker.
     */
    void *interrupt_argument;
    /**
     * How this worker computes, in words of its own, for solond to compare with the others of its group (verify.mixed): what
     * computes the gradient. NULL here and in the next four: not said. solond gets hashes of them.
     */
    const char *framework;
    /**
     * The version of that.
     */
    const char *framework_version;
    /**
     * How many threads it uses.
     */
    const char *threads;
    /**
     * What the processor can do, or which GPU and driver.
     */
    const char *device;
    /**
     * The type of the numbers, and what changes their arithmetic.
     */
    const char *dtype;
} solon_options;

/**
 * How a session began. Set `size` to sizeof(solon_joined) before the call.
 */
typedef struct solon_joined {
    /**
     * sizeof(solon_joined), set by the caller.
     */
    size_t size;
    /**
     * The first round of this session.
     */
    uint64_t round;
    /**
     * Rounds whose updates this worker has missed: with any, its model must be restored from another worker's or a checkpoint.
     * -1: the daemon counts differently (it was restarted without its journal); restore the model.
     */
    int64_t missed;
} solon_joined;

/**
 * What the job is, and this worker's place in it. Set `size` to sizeof(solon_plan) before the call.
 */
typedef struct solon_plan {
    /**
     * sizeof(solon_plan), set by the caller.
     */
    size_t size;
    /**
     * Numbers in the gradient: the length of every buffer.
     */
    uint64_t dimension;
    /**
     * Workers in the job.
     */
    uint32_t workers;
    /**
     * Groups; all workers of a group compute the gradient of the same samples.
     */
    uint32_t groups;
    /**
     * Workers in a group.
     */
    uint32_t group_size;
    /**
     * This worker's index.
     */
    uint32_t worker;
    /**
     * This worker's group: which samples are its.
     */
    uint32_t group;
    /**
     * This worker's row in its group.
     */
    uint32_t row;
    /**
     * Liars per group that are corrected.
     */
    uint32_t adversaries;
    /**
     * Absentees per group that are tolerated beside them.
     */
    uint32_t stragglers;
    /**
     * A worker uploads one part in so many of its gradient.
     */
    uint32_t compression;
    /**
     * Rounds that may be submitted and not collected.
     */
    uint32_t window;
    /**
     * A round's time from its begin to its end, in milliseconds.
     */
    uint32_t deadline_ms;
    /**
     * update = scale x sum over the groups.
     */
    float scale;
    /**
     * Relative tolerance within which workers of a group must agree.
     */
    double tolerance;
} solon_plan;

/**
 * What the daemon reports of a round. Set `size` to sizeof(solon_report) before each call. It is filled if the call returns
 * SOLON_STATUS_OK or SOLON_STATUS_UNDECODABLE, and left alone otherwise.
 */
typedef struct solon_report {
    /**
     * sizeof(solon_report), set by the caller.
     */
    size_t size;
    /**
     * The round.
     */
    uint64_t round;
    /**
     * The digest of the update: the same for every worker of the job. 0 if there is none.
     */
    uint64_t digest;
    /**
     * 0: complete. Undecodable: 1, too few shards came in time; 2, too few agree; 3, too few are finite;
     * 4, a number of the update is too large for the 16 bits by which updates travel (push.precision).
     */
    uint32_t outcome;
    /**
     * If undecodable: the group whose word failed first.
     */
    uint32_t group;
    /**
     * If undecodable: its chunk.
     */
    uint32_t chunk;
    /**
     * If undecodable: shards that came.
     */
    uint32_t arrived;
    /**
     * Outcome 2: the largest set that agrees. Outcome 3: those that are finite.
     */
    uint32_t agreeing;
    /**
     * If undecodable: how many must agree.
     */
    uint32_t needed;
    /**
     * The largest residual over tolerance among what was believed; at most 1.
     */
    float residual_ratio;
    /**
     * The same before anything was corrected; far above 1 where somebody lied.
     */
    float received_ratio;
    /**
     * Workers proved wrong in this round; see SOLON_CONTAINS.
     */
    uint64_t liars[16];
    /**
     * Workers proved wrong in an earlier round, by a shard that came late.
     */
    uint64_t late_liars[16];
    /**
     * Workers of whom nothing came before the round closed. That is no fault.
     */
    uint64_t absent[16];
    /**
     * Workers of whom some but not all came.
     */
    uint64_t late[16];
} solon_report;

/**
 * The last round that was collected. Set `size` to sizeof(solon_last) before the call.
 */
typedef struct solon_last {
    /**
     * sizeof(solon_last), set by the caller.
     */
    size_t size;
    /**
     * 1 if any round was collected, else 0, and then so is the rest.
     */
    uint32_t known;
    /**
     * The round.
     */
    uint64_t round;
    /**
     * The digest of its update; 0 if it was undecodable.
     */
    uint64_t digest;
} solon_last;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of this library, such as "0.1.0".
 */
const char *solon_version(void);

/**
 * The name of a status in a word or two. Never NULL.
 */
const char *solon_status_name(uint32_t status);

/**
 * What went wrong in the last call that failed in this thread, in one line; empty if none has. Never NULL. Valid until the next
 * call of a function of this library in this thread.
 */
const char *solon_last_error(void);

/**
 * Joins a job, and makes `*worker`. Takes no longer than `join_timeout_ms`. After an error `*worker` is NULL.
 *
 * `options` may be NULL: everything is then looked for in the environment.
 */
enum solon_status solon_join(const struct solon_options *options, struct solon_worker **worker);

/**
 * Leaves the job in peace, and frees the worker: what was submitted still goes, for a second at most. It is freed whatever is returned,
 * unless that is SOLON_STATUS_BUSY. NULL is allowed, and in a child made by fork() nothing is done.
 */
enum solon_status solon_leave(struct solon_worker *worker);

/**
 * Frees the worker without a word to the daemon, which sees the connection end: as if the process had been killed. As solon_leave
 * otherwise.
 */
enum solon_status solon_worker_free(struct solon_worker *worker);

/**
 * Joins again after SOLON_STATUS_LOST, with the same options. `joined` may be NULL; what it says of missed rounds must not be
 * passed over. After an error the worker is still lost: try again, or leave.
 */
enum solon_status solon_rejoin(struct solon_worker *worker, struct solon_joined *joined);

/**
 * How the session began that the worker is in.
 */
enum solon_status solon_worker_joined(struct solon_worker *worker, struct solon_joined *joined);

/**
 * The job's plan, and this worker's place in it.
 */
enum solon_status solon_worker_plan(struct solon_worker *worker, struct solon_plan *plan);

/**
 * Submits the gradient in `buffer` and replaces it by the update, which is the same for every worker of the job. `length` is the
 * plan's dimension. After an error `buffer` holds neither. `report` may be NULL.
 */
enum solon_status solon_exchange(struct solon_worker *worker, float *buffer, size_t length, struct solon_report *report);

/**
 * Submits a gradient for the next round; `*round`, unless NULL, becomes that round. Waits while credits are short, not for the
 * round. Up to the plan's window of rounds may be submitted before the first is collected by solon_wait.
 */
enum solon_status solon_submit(struct solon_worker *worker, const float *gradient, size_t length, uint64_t *round);

/**
 * Waits for the oldest round that was not collected, and fills `update`. `report` may be NULL.
 */
enum solon_status solon_wait(struct solon_worker *worker, float *update, size_t length, struct solon_report *report);

/**
 * As solon_wait, for a round that this worker has not submitted to and never will: for one that is behind.
 */
enum solon_status solon_follow(struct solon_worker *worker, float *update, size_t length, struct solon_report *report);

/**
 * Has the job closed a round that this worker has not submitted? Then computing for it is of no use: solon_follow takes its update.
 */
enum solon_status solon_is_behind(struct solon_worker *worker, bool *behind);

/**
 * The round that the next submission is for.
 */
enum solon_status solon_next_round(struct solon_worker *worker, uint64_t *round);

/**
 * The last round that was collected: what a checkpoint keeps, and `resume` in solon_options takes.
 */
enum solon_status solon_last_collected(struct solon_worker *worker, struct solon_last *last);

/**
 * How shards and updates travel: `*rdma`, unless NULL, says whether by RDMA, and `*reason`, unless NULL, why, in a line that is valid until
 * the next call with this worker.
 */
enum solon_status solon_way(struct solon_worker *worker, bool *rdma, const char **reason);

/**
 * Bytes of frames sent and received in this session. Both may be NULL.
 */
enum solon_status solon_traffic(struct solon_worker *worker, uint64_t *sent, uint64_t *received);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SOLON_H */
