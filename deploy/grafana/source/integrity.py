"""Who lied and when, how close honest noise comes to the tolerance, and how much may still go wrong."""

from panels import EMPTY, MORE_LIARS, GREEN, GREY, RED, YELLOW, bars, dashboard, number, query, series, steps, table, timeline

# What was worst, first: `or` keeps the first for each worker.
STATE = """
(increase(solon_worker_named_rounds_total{$$}[$$]) > 0) * 0 + 3
or (solon_worker_connected{$$} == 0) + 2
or (increase(solon_worker_absent_rounds_total{$$}[$$]) + increase(solon_worker_late_rounds_total{$$}[$$])
    > on (job, instance) group_left () 0.5 * sum by (job, instance) (increase(solon_rounds_total{$$}[$$]))) * 0 + 1
or solon_worker_connected{$$} * 0
"""

SUMMARY = [
    number(
        "Liars",
        "Workers that reports of rounds in the time shown name as liars.",
        "none",
        "sum by (instance) (increase(solon_worker_named_rounds_total{$$}[$__range]) > bool 0)",
        "{{instance}}",
        colors=steps(GREEN, (1, RED)),
    ),
    number(
        "Corrected per group",
        "Liars per group that the code corrects (job.adversaries). With more the round is undecodable; nothing wrong is ever sent.",
        "none",
        "solon_job_adversaries{$$}",
        "{{instance}}",
    ),
    number(
        "Lies",
        "Shards that were proved wrong in the time shown. A liar that lies in every chunk makes one per chunk and round.",
        "short",
        "increase(solon_lies_total{$$}[$__range])",
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, RED)),
    ),
    number(
        "Suspects",
        "Shards in the time shown that do not agree and are not proved to be lies: nobody is named for them. Many: the tolerance is close to the noise.",
        "short",
        "increase(solon_suspects_total{$$}[$__range])",
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, YELLOW)),
    ),
    number(
        "Rounds without update",
        "Rounds in the time shown that gave no update.",
        "none",
        'sum by (instance) (increase(solon_rounds_total{$$,outcome!="complete"}[$__range]))',
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, RED)),
    ),
    number(
        "Tolerance",
        "How far honest shards may be apart, relative to the gradient (verify.tolerance). What is farther off is a lie.",
        "sci",
        "solon_job_tolerance_ratio{$$}",
        "{{instance}}",
    ),
]

WHO = [
    timeline(
        "Who, when",
        """One row per worker. Lied: a round's report names it. Absent: not one shard, or only a part of them, came in time in more than half of the rounds;
        with early decision (rounds.linger_ms = 0) that is normal for the slowest. Not connected: it has no session.""",
        STATE,
        "worker {{worker}}",
        {0: ("honest", GREEN), 1: ("absent or late", YELLOW), 2: ("not connected", GREY), 3: ("lied", RED)},
        height=12,
    ),
    table(
        "Workers",
        """Each worker since the daemon's start. Worker w is row w mod r of group w / r; which machine has it is known to whoever started the workers.
        Choose one daemon on top: indices of several are added up.""",
        [
            (
                "Connected",
                "none",
                "sum by (worker, group) (solon_worker_connected{$$} * on (job, instance, worker) group_left (group) solon_worker_info{$$})",
            ),
            ("Last seen, ago", "s", "time() - max by (worker) (solon_worker_last_seen_timestamp_seconds{$$} > 0)"),
            ("Rounds that name it", "short", "sum by (worker) (solon_worker_named_rounds_total{$$})"),
            ("Lies (shards)", "short", "sum by (worker) (solon_worker_lies_total{$$})"),
            ("Shards accepted", "short", "sum by (worker) (solon_worker_shards_accepted_total{$$})"),
            ("Rounds absent", "short", "sum by (worker) (solon_worker_absent_rounds_total{$$})"),
            ("Rounds late", "short", "sum by (worker) (solon_worker_late_rounds_total{$$})"),
        ],
        "worker",
        renamed={"worker": "Worker", "group": "Group"},
    ),
    bars(
        "Lies by worker",
        "Shards of each worker in the time shown that were proved wrong.",
        "short",
        "sum by (worker) (increase(solon_worker_lies_total{$$}[$__range]))",
        "worker {{worker}}",
        width=12,
        height=10,
        colors=steps(GREEN, (0.5, RED)),
    ),
    series(
        "Rounds that name a worker",
        f"Per second. {EMPTY}nobody lies.",
        "ops",
        query("sum by (worker) (rate(solon_worker_named_rounds_total{$$}[$$])) > 0", "worker {{worker}}"),
        width=12,
        height=10,
    ),
    series(
        "Names",
        "Workers named per second. late: by a shard that its round had not waited for, in a later report.",
        "ops",
        query("sum by (found) (rate(solon_liars_named_total{$$}[$$]))", "{{found}}"),
    ),
    series(
        "Words by verdict",
        "A word is what one group sent for one chunk. liars: somebody is named. suspects: a shard disagrees, and is not proved to be a lie.",
        "ops",
        query("sum by (verdict) (rate(solon_words_total{$$}[$$]))", "{{verdict}}"),
        stacked=True,
    ),
    series(
        "What lies cost",
        "Per second: words that needed more shards than had come, and chunks that were recovered twice because other workers agree than in the chunk before.",
        "ops",
        query("rate(solon_words_disputed_total{$$}[$$])", "words that waited for more shards"),
        query("rate(solon_chunks_repeated_total{$$}[$$])", "chunks recovered twice"),
    ),
]

RESIDUALS = [
    series(
        "Residual over tolerance",
        """The largest residual of shards that were believed, per round, in parts of the tolerance: so many percent of rounds had at most so much. This is
        honest noise. What nears 1 becomes undecodable rounds and false names: raise verify.tolerance. Where a round's group had no shards to spare there is nothing to compare.""",
        "percentunit",
        *[
            query(f"histogram_quantile({part}, sum by (le) (rate(solon_round_residual_ratio_bucket{{$$}}[$$])))", f"{round(part * 100)} %")
            for part in (0.5, 0.9, 0.99)
        ],
        limit=1,
        width=8,
    ),
    series(
        "Rounds above half of the tolerance",
        "The part of rounds whose residual was more than half of the tolerance. It rises before honest workers are called liars.",
        "percentunit",
        query(
            """1 - sum by (instance) (rate(solon_round_residual_ratio_bucket{$$,le="0.5"}[$$]))
            / sum by (instance) (rate(solon_round_residual_ratio_count{$$}[$$]))""",
            "{{instance}}",
        ),
        max=1,
    ),
    series(
        "Noise of each group",
        """How far apart 99 % of a group's words were at most since the start, in parts of the tolerance; shards of liars are in it. A group far above the
        others has workers that compute different gradients: seeds, data, kernels, or a liar.""",
        "short",
        query("solon_group_noise_ratio{$$}", "group {{group}}"),
        limit=1,
        logarithmic=True,
    ),
]

MARGIN = [
    series(
        "Liars that could still be corrected",
        """Per group: as many as are connected beyond those that must agree, at most job.adversaries, less those that were named in the last five minutes. At 0 the
        next liar makes rounds undecodable.""",
        "none",
        query(MORE_LIARS, "group {{group}}"),
        below_zero=True,
    ),
    series(
        "Connected beyond what is needed",
        "Workers of a group with a session, less those whose shards must agree: how many may leave or be late if nobody lies. Below 0 the job stands still.",
        "none",
        query("solon_group_connected_workers{$$} - on (job, instance) group_left () solon_job_needed_workers{$$}", "group {{group}}"),
        below_zero=True,
    ),
    series(
        "Margin of the last round",
        "Per group: arrived, less named as liars, less needed. With early decision a round does not wait for the rest, so it is small.",
        "none",
        query("solon_group_margin_workers{$$}", "group {{group}}"),
        below_zero=True,
    ),
    series(
        "Rounds without margin",
        "The part of rounds in whose weakest group nobody more could have been missing.",
        "percentunit",
        query(
            """sum by (instance) (rate(solon_round_margin_workers_bucket{$$,le="0"}[$$]))
            / sum by (instance) (rate(solon_round_margin_workers_count{$$}[$$]))""",
            "{{instance}}",
        ),
        max=1,
        width=12,
    ),
    series(
        "Undecodable rounds",
        """Per second, by reason. too_few: workers were absent at the deadline. disagree: more lie than are corrected, or honest ones differ by more than the
        tolerance. not_finite: NaN or infinity in the gradients. too_large: the update does not fit push.precision.""",
        "ops",
        query('sum by (outcome) (rate(solon_rounds_total{$$,outcome!="complete"}[$$]))', "{{outcome}}"),
        stacked=True,
        width=12,
    ),
    series(
        "Absent",
        "The part of rounds of which no shard of a worker had come at the close. With early decision that is no fault.",
        "percentunit",
        query(
            """sum by (worker) (rate(solon_worker_absent_rounds_total{$$}[$$]))
            / scalar(sum(rate(solon_rounds_total{$$}[$$])))""",
            "worker {{worker}}",
        ),
        max=1,
        width=12,
    ),
    series(
        "Late",
        "The part of rounds of which only a part of a worker's shards had come at the close.",
        "percentunit",
        query(
            """sum by (worker) (rate(solon_worker_late_rounds_total{$$}[$$]))
            / scalar(sum(rate(solon_rounds_total{$$}[$$])))""",
            "worker {{worker}}",
        ),
        max=1,
        width=12,
    ),
]

DASHBOARD = dashboard(
    "solon-integrity",
    "Solon: Integrity",
    "Who lied and when, how close honest noise comes to the tolerance, and how much may still go wrong.",
    ("In the time shown", SUMMARY),
    ("Who lied, when", WHO),
    ("Residuals", RESIDUALS),
    ("Margin", MARGIN),
)
