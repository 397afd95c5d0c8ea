/* One worker of a job that fits a straight line through points, by gradient descent. Each group has points of its own.
 *
 *     solond --job-dimension 2 --job-groups 2 --job-adversaries 1 --job-compression 1   (6 workers)
 *     for i in 0 1 2 3 4 5; do SOLON_ENDPOINT=127.0.0.1:7447 SOLON_WORKER=$i ./worker & done
 *
 * With the argument `lie` it sends -100 times its gradient: the others name it, and their line is still the right one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <solon.h>

enum { STEPS = 200, POINTS = 64 };

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, solon_last_error());
    return 1;
}

int main(int argc, char **argv) {
    const int lies = argc > 1 && strcmp(argv[1], "lie") == 0;
    solon_options options = SOLON_OPTIONS_INIT; /* endpoint and index from the environment */
    solon_worker *worker;
    if (solon_join(&options, &worker) != SOLON_STATUS_OK) return failed("cannot join");
    solon_plan plan;
    plan.size = sizeof plan;
    if (solon_worker_plan(worker, &plan) != SOLON_STATUS_OK) return failed("no plan");
    if (plan.dimension != 2) return fprintf(stderr, "this example needs --job-dimension 2\n"), 1;
    printf("worker %u of %u: row %u of group %u\n", plan.worker, plan.workers, plan.row, plan.group);

    float line[2] = {0.0f, 0.0f}; /* slope and intercept; the points lie on 3 x - 1 */
    solon_report report;
    report.size = sizeof report;
    for (int step = 0; step < STEPS; step++) {
        float gradient[2] = {0.0f, 0.0f};
        for (unsigned at = 0; at < POINTS; at++) {
            float x = (float)(at * plan.groups + plan.group) / (float)(POINTS * plan.groups);
            float off = line[0] * x + line[1] - (3.0f * x - 1.0f);
            gradient[0] += off * x;
            gradient[1] += off;
        }
        for (int i = 0; lies && i < 2; i++) gradient[i] *= -100.0f;
        solon_status status = solon_exchange(worker, gradient, 2, &report);
        if (status == SOLON_STATUS_UNDECODABLE) continue; /* no update, for nobody: the step is skipped */
        if (status != SOLON_STATUS_OK) return failed("a round failed"); /* a long job would call solon_rejoin */
        for (int i = 0; i < 2; i++) line[i] -= gradient[i] / (plan.scale * (float)(POINTS * plan.groups));
        for (unsigned other = 0; step == STEPS - 1 && other < plan.workers; other++)
            if (SOLON_CONTAINS(report.liars, other)) printf("worker %u lies\n", other);
    }
    printf("slope %.2f, intercept %.2f, digest %016llx\n", line[0], line[1], (unsigned long long)report.digest);
    if (solon_leave(worker) != SOLON_STATUS_OK) return failed("cannot leave");
    return fabsf(line[0] - 3.0f) < 0.05f && fabsf(line[1] + 1.0f) < 0.05f ? 0 : 2;
}
