/* What may happen to a worker in C, one scenario per run: tests/c.rs starts them. Ends with 0 if all was as expected. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <solon.h>

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "scenarios.c:%d: not so: %s; last error: %s\n", __LINE__, #condition, solon_last_error()); \
            _exit(1); \
        } \
    } while (0)

#define RETURNS(status, call) \
    do { \
        solon_status found = (call); \
        if (found != SOLON_STATUS_##status) { \
            fprintf(stderr, "scenarios.c:%d: %s: found %s, expected %s; last error: %s\n", __LINE__, #call, \
                    solon_status_name(found), solon_status_name(SOLON_STATUS_##status), solon_last_error()); \
            _exit(1); \
        } \
    } while (0)

#define SAYS(text) EXPECT(strstr(solon_last_error(), text) != NULL)

static void say(const char *line) {
    puts(line);
    fflush(stdout);
}

static solon_worker *join(void) {
    solon_worker *worker = NULL;
    RETURNS(OK, solon_join(NULL, &worker));
    EXPECT(worker != NULL);
    return worker;
}

static size_t dimension(solon_worker *worker) {
    solon_plan plan;
    plan.size = sizeof plan;
    RETURNS(OK, solon_worker_plan(worker, &plan));
    return (size_t)plan.dimension;
}

/* A buffer of exactly `length` floats, so that AddressSanitizer sees one more. */
static float *numbers(size_t length, float first) {
    float *buffer = malloc(length * sizeof *buffer);
    EXPECT(buffer != NULL);
    for (size_t at = 0; at < length; at++) buffer[at] = first + (float)at;
    return buffer;
}

/* A round of a job of one worker with scale 1: the update is the gradient. */
static void round_alone(solon_worker *worker, float first) {
    size_t length = dimension(worker);
    float *buffer = numbers(length, first);
    RETURNS(OK, solon_exchange(worker, buffer, length, NULL));
    for (size_t at = 0; at < length; at++) EXPECT(fabsf(buffer[at] - first - (float)at) <= 1e-3f);
    free(buffer);
}

/* Everything that a job of one worker, with scale 1, can be asked, rightly and wrongly. */
static void calls(void) {
    EXPECT(strcmp(solon_last_error(), "") == 0);
    EXPECT(strncmp(solon_version(), "0.", 2) == 0);
    EXPECT(strcmp(solon_status_name(4000000000u), "unknown status") == 0);
    solon_worker *worker = join();
    size_t length = dimension(worker);
    float *buffer = numbers(length, 1.0f);
    solon_report report;
    memset(&report, 0xff, sizeof report);
    report.size = sizeof report;
    RETURNS(OK, solon_exchange(worker, buffer, length, &report));
    EXPECT(report.outcome == 0 && report.round == 0 && report.digest != 0 && report.size == sizeof report);
    EXPECT(!SOLON_CONTAINS(report.liars, 0u) && !SOLON_CONTAINS(report.absent, 0u));
    EXPECT(buffer[0] == 1.0f && buffer[length - 1] == (float)length);
    solon_last last;
    last.size = sizeof last;
    RETURNS(OK, solon_last_collected(worker, &last));
    EXPECT(last.known == 1 && last.round == 0 && last.digest == report.digest);
    solon_joined joined;
    joined.size = sizeof joined;
    RETURNS(OK, solon_worker_joined(worker, &joined));
    EXPECT(joined.round == 0 && joined.missed == 0);

    RETURNS(WRONG_LENGTH, solon_exchange(worker, buffer, length - 1, NULL));
    SAYS("check [job] dimension");
    RETURNS(WRONG_LENGTH, solon_exchange(worker, buffer, length + 1, NULL));
    RETURNS(WRONG_LENGTH, solon_submit(worker, buffer, 0, NULL));
    RETURNS(WRONG_LENGTH, solon_wait(worker, buffer, SIZE_MAX, NULL));
    RETURNS(WRONG_LENGTH, solon_follow(worker, buffer, SIZE_MAX / 4, NULL));
    RETURNS(INVALID_ARGUMENT, solon_exchange(worker, NULL, length, NULL));
    SAYS("the buffer is null");
    RETURNS(INVALID_ARGUMENT, solon_submit(worker, (const float *)(const void *)((const char *)buffer + 1), length, NULL));
    SAYS("not aligned");
    report.size = 0;
    RETURNS(INVALID_ARGUMENT, solon_exchange(worker, buffer, length, &report));
    SAYS("size in solon_report is 0");

    RETURNS(OK, solon_leave(NULL));
    RETURNS(OK, solon_worker_free(NULL));
    RETURNS(INVALID_ARGUMENT, solon_join(NULL, NULL));
    RETURNS(INVALID_ARGUMENT, solon_rejoin(NULL, NULL));
    RETURNS(INVALID_ARGUMENT, solon_worker_joined(NULL, &joined));
    RETURNS(INVALID_ARGUMENT, solon_worker_joined(worker, NULL));
    RETURNS(INVALID_ARGUMENT, solon_worker_plan(NULL, NULL));
    RETURNS(INVALID_ARGUMENT, solon_worker_plan(worker, NULL));
    RETURNS(INVALID_ARGUMENT, solon_exchange(NULL, buffer, length, NULL));
    RETURNS(INVALID_ARGUMENT, solon_submit(NULL, buffer, length, NULL));
    RETURNS(INVALID_ARGUMENT, solon_wait(NULL, buffer, length, NULL));
    RETURNS(INVALID_ARGUMENT, solon_follow(NULL, buffer, length, NULL));
    RETURNS(INVALID_ARGUMENT, solon_is_behind(NULL, NULL));
    RETURNS(INVALID_ARGUMENT, solon_is_behind(worker, NULL));
    RETURNS(INVALID_ARGUMENT, solon_next_round(worker, NULL));
    RETURNS(INVALID_ARGUMENT, solon_last_collected(worker, NULL));
    RETURNS(INVALID_ARGUMENT, solon_way(NULL, NULL, NULL));
    RETURNS(INVALID_ARGUMENT, solon_traffic(NULL, NULL, NULL));
    SAYS("worker is null");

    uint64_t round = 99, next = 99;
    RETURNS(OK, solon_submit(worker, buffer, length, &round));
    RETURNS(OK, solon_next_round(worker, &next));
    EXPECT(round == 1 && next == 2);
    report.size = sizeof report;
    RETURNS(OK, solon_wait(worker, buffer, length, &report));
    EXPECT(report.round == 1);
    solon_status status;
    int submitted = 0;
    while ((status = solon_submit(worker, buffer, length, NULL)) == SOLON_STATUS_OK && submitted < 100) submitted++;
    EXPECT(status == SOLON_STATUS_WINDOW_FULL && submitted > 0);
    for (int at = 0; at < submitted; at++) RETURNS(OK, solon_wait(worker, buffer, length, NULL));

    buffer[0] = NAN;
    RETURNS(UNDECODABLE, solon_exchange(worker, buffer, length, &report));
    EXPECT(report.outcome == 3 && report.digest == 0 && report.needed == 1 && report.round == (uint64_t)submitted + 2);
    free(buffer);
    round_alone(worker, 7.0f);

    bool rdma = true, behind = true;
    const char *reason = NULL;
    RETURNS(OK, solon_way(worker, &rdma, &reason));
    EXPECT(!rdma && reason != NULL && strlen(reason) > 0);
    RETURNS(OK, solon_is_behind(worker, &behind));
    EXPECT(!behind);
    uint64_t sent = 0, received = 0;
    RETURNS(OK, solon_traffic(worker, &sent, &received));
    EXPECT(sent > length * 4 && received > length * 4);
    RETURNS(OK, solon_leave(worker));
}

/* What keeps a worker from joining. */
static void refusals(void) {
    solon_options options = SOLON_OPTIONS_INIT;
    solon_worker *worker = (solon_worker *)&options;
    options.worker = 7;
    RETURNS(NO_SUCH_WORKER, solon_join(&options, &worker));
    SAYS("there is no worker 7 in a job of 1 workers");
    EXPECT(worker == NULL);
    options.worker = 0;
    options.job = "another";
    RETURNS(REFUSED, solon_join(&options, &worker));
    options.job = "\xff";
    RETURNS(INVALID_ARGUMENT, solon_join(&options, &worker));
    SAYS("options.job is not UTF-8");
    options.job = NULL;
    options.transport = "pigeon";
    RETURNS(INVALID_ARGUMENT, solon_join(&options, &worker));
    SAYS("pigeon");
    options.transport = "rdma";
    RETURNS(NO_RDMA, solon_join(&options, &worker));
    options.transport = "tcp";
    options.endpoint = "127.0.0.1:1";
    RETURNS(NO_DAEMON, solon_join(&options, &worker));
    SAYS("cannot connect to solond at 127.0.0.1:1");
    options.endpoint = "nonsense";
    RETURNS(NO_DAEMON, solon_join(&options, &worker));
    options.endpoint = NULL;
    options.worker = -2;
    RETURNS(INVALID_ARGUMENT, solon_join(&options, &worker));
    options.size = 3;
    RETURNS(INVALID_ARGUMENT, solon_join(&options, &worker));
    SAYS("size in solon_options is 3");
    options.size = sizeof options;
    options.worker = -1;
    setenv("SOLON_WORKER", "first", 1);
    RETURNS(NOT_CONFIGURED, solon_join(&options, &worker));
    SAYS("SOLON_WORKER is \"first\"");
    unsetenv("SOLON_WORKER");
    unsetenv("SOLON_ENDPOINT");
    RETURNS(NOT_CONFIGURED, solon_join(&options, &worker));
    SAYS("SOLON_ENDPOINT is not set");
    SAYS("OMPI_COMM_WORLD_RANK (not set)");
}

static void mixed(void) {
    solon_options options = SOLON_OPTIONS_INIT;
    solon_worker *first, *second, *third;
    options.worker = 0;
    options.framework = "by hand";
    options.threads = "1";
    RETURNS(OK, solon_join(&options, &first));
    options.worker = 1;
    RETURNS(OK, solon_join(&options, &second));
    /* Two of three say the same: more than half. */
    options.worker = 2;
    options.threads = "2";
    RETURNS(REFUSED, solon_join(&options, &third));
    SAYS("worker 2 computes differently from worker 0 and others of its group: threads differ");
    SAYS("here it is threads \"2\"");
    options.device = "\xff";
    RETURNS(INVALID_ARGUMENT, solon_join(&options, &third));
    SAYS("options.device is not UTF-8");
    /* A program that was compiled with the first version of the structure says nothing. */
    options.size = 112;
    RETURNS(OK, solon_join(&options, &third));
    RETURNS(OK, solon_leave(third));
    RETURNS(OK, solon_leave(second));
    RETURNS(OK, solon_leave(first));
}

static void too_soon(void) {
    solon_worker *first = join(), *second;
    RETURNS(TRY_AGAIN, solon_join(NULL, &second));
    RETURNS(OK, solon_leave(first));
}

/* The peer is no solond: `status` is what joining says. */
static void stranger(solon_status status) {
    solon_options options = SOLON_OPTIONS_INIT;
    solon_worker *worker;
    options.join_timeout_ms = 500;
    EXPECT(solon_join(&options, &worker) == status && worker == NULL);
}

/* The others do not come, and then the daemon is gone. */
static void lost(void) {
    solon_worker *worker = join();
    size_t length = dimension(worker);
    float *buffer = numbers(length, 0.0f);
    say("waiting");
    RETURNS(LOST, solon_exchange(worker, buffer, length, NULL));
    SAYS("the aggregator was lost in round 0");
    RETURNS(LOST, solon_submit(worker, buffer, length, NULL));
    RETURNS(LOST, solon_wait(worker, buffer, length, NULL));
    RETURNS(NO_DAEMON, solon_rejoin(worker, NULL));
    RETURNS(LOST, solon_exchange(worker, buffer, length, NULL));
    free(buffer);
    /* Says good bye to a closed connection: that must not raise SIGPIPE. */
    RETURNS(OK, solon_leave(worker));
}

/* As lost, but lost only once, and there is no second try before the good bye. */
static void lost_then_leave(void) {
    solon_worker *worker = join();
    size_t length = dimension(worker);
    float *buffer = numbers(length, 0.0f);
    say("waiting");
    RETURNS(LOST, solon_exchange(worker, buffer, length, NULL));
    free(buffer);
    RETURNS(OK, solon_leave(worker));
}

static volatile sig_atomic_t stop;
static solon_worker *waiting;
static solon_status within = SOLON_STATUS_OK, leaving = SOLON_STATUS_OK;

static void on_alarm(int number) {
    (void)number;
    stop = 1;
}

static bool stopped(void *argument) {
    EXPECT(argument == &stop);
    float number = 0.0f;
    within = solon_exchange(waiting, &number, 1, NULL);
    leaving = solon_leave(waiting);
    return stop;
}

/* The others do not come, and a signal does. */
static void interrupted(void) {
    solon_options options = SOLON_OPTIONS_INIT;
    options.interrupt = stopped;
    options.interrupt_argument = (void *)(uintptr_t)&stop;
    RETURNS(OK, solon_join(&options, &waiting));
    size_t length = dimension(waiting);
    float *buffer = numbers(length, 0.0f);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    alarm(1);
    RETURNS(INTERRUPTED, solon_exchange(waiting, buffer, length, NULL));
    SAYS("the wait for round 0 was interrupted");
    EXPECT(within == SOLON_STATUS_BUSY && leaving == SOLON_STATUS_BUSY);
    RETURNS(INTERRUPTED, solon_wait(waiting, buffer, length, NULL));
    free(buffer);
    RETURNS(OK, solon_leave(waiting));
}

static void timed_out(void) {
    solon_options options = SOLON_OPTIONS_INIT;
    solon_worker *worker;
    options.round_timeout_ms = 100;
    RETURNS(OK, solon_join(&options, &worker));
    size_t length = dimension(worker);
    float *buffer = numbers(length, 0.0f);
    RETURNS(TIMED_OUT, solon_exchange(worker, buffer, length, NULL));
    RETURNS(TIMED_OUT, solon_wait(worker, buffer, length, NULL));
    free(buffer);
    RETURNS(OK, solon_leave(worker));
}

/* In a child: nothing works, nothing hangs. */
static void in_child(solon_worker *worker, size_t length) {
    float *buffer = numbers(length, 0.0f);
    uint64_t round;
    bool flag;
    solon_plan plan;
    solon_joined joined;
    solon_last last;
    plan.size = sizeof plan;
    joined.size = sizeof joined;
    last.size = sizeof last;
    alarm(20);
    RETURNS(FORKED, solon_exchange(worker, buffer, length, NULL));
    SAYS("a fork of it");
    RETURNS(FORKED, solon_submit(worker, buffer, length, &round));
    RETURNS(FORKED, solon_wait(worker, buffer, length, NULL));
    RETURNS(FORKED, solon_follow(worker, buffer, length, NULL));
    RETURNS(FORKED, solon_rejoin(worker, NULL));
    RETURNS(FORKED, solon_worker_plan(worker, &plan));
    RETURNS(FORKED, solon_worker_joined(worker, &joined));
    RETURNS(FORKED, solon_last_collected(worker, &last));
    RETURNS(FORKED, solon_is_behind(worker, &flag));
    RETURNS(FORKED, solon_next_round(worker, &round));
    RETURNS(FORKED, solon_way(worker, &flag, NULL));
    RETURNS(FORKED, solon_traffic(worker, NULL, NULL));
    RETURNS(FORKED, solon_leave(worker));
    RETURNS(FORKED, solon_worker_free(worker));
    free(buffer);
    _exit(0);
}

static void forked(void) {
    solon_worker *worker = join();
    size_t length = dimension(worker);
    round_alone(worker, 1.0f);
    for (int times = 0; times < 20; times++) {
        pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) in_child(worker, length);
        round_alone(worker, (float)times); /* meanwhile */
        int status = -1;
        EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        round_alone(worker, (float)times + 0.5f); /* and afterwards */
    }
    solon_last last;
    last.size = sizeof last;
    RETURNS(OK, solon_last_collected(worker, &last));
    EXPECT(last.round == 40);
    RETURNS(OK, solon_leave(worker));
}

/* A child that lives on, with copies of all descriptors, does not keep the parent's connection open. */
static void hang_up(void) {
    solon_worker *worker = join();
    round_alone(worker, 1.0f);
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        char byte;
        alarm(60);
        while (read(0, &byte, 1) > 0) continue;
        _exit(0);
    }
    RETURNS(OK, solon_worker_free(worker));
    say("freed");
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A daemon that was started again. */
static void comes_back(void) {
    solon_worker *worker = join();
    round_alone(worker, 1.0f);
    say("waiting");
    char byte;
    EXPECT(read(0, &byte, 1) == 1); /* the daemon was killed, and another one listens there now */
    size_t length = dimension(worker);
    float *buffer = numbers(length, 0.0f);
    RETURNS(LOST, solon_exchange(worker, buffer, length, NULL));
    free(buffer);
    solon_joined joined;
    joined.size = sizeof joined;
    RETURNS(OK, solon_rejoin(worker, &joined));
    EXPECT(joined.round == 0 && joined.missed == -1); /* it has no journal, and counts from the beginning */
    round_alone(worker, 2.0f);
    RETURNS(OK, solon_leave(worker));
}

/* One float beyond the end is read: AddressSanitizer must see that, or it sees nothing. */
static void overrun(void) {
    solon_worker *worker = join();
    size_t length = dimension(worker);
    float *buffer = numbers(length, 1.0f);
    printf("%f\n", (double)buffer[length + (size_t)(worker == NULL)]);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } scenarios[] = {
        {"calls", calls}, {"refusals", refusals}, {"mixed", mixed}, {"too-soon", too_soon}, {"lost", lost},
        {"lost-then-leave", lost_then_leave}, {"interrupted", interrupted}, {"timed-out", timed_out},
        {"forked", forked}, {"hang-up", hang_up}, {"comes-back", comes_back}, {"overrun", overrun},
    };
    EXPECT(argc == 2);
    if (strcmp(argv[1], "speaks-otherwise") == 0) return stranger(SOLON_STATUS_VERSION_MISMATCH), 0;
    if (strcmp(argv[1], "says-nothing") == 0) return stranger(SOLON_STATUS_NO_DAEMON), 0;
    for (size_t at = 0; at < sizeof scenarios / sizeof *scenarios; at++)
        if (strcmp(argv[1], scenarios[at].name) == 0) return scenarios[at].run(), 0;
    fprintf(stderr, "there is no scenario %s\n", argv[1]);
    return 2;
}
