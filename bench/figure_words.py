"""The words for the figures of README.md and docs/figures.md. Data only; bench/readme.py reads it."""

# bench, claim (a pattern), sentence. `{value}` is the figure, `{1}`, `{2}` are the groups of the pattern.
SENTENCES = (
    (
        "demo",
        "seconds, start to end",
        "`make demo`, photographs to portraits with the training between: {value:.0f} s.",
    ),
    (
        "fresh-clone",
        "seconds to the first portrait",
        "`git clone` to the first portrait, installation included: {value:.0f} s.",
    ),
    ("adapter-size", "standard: MB.*", "One person's adapter for the built-in base takes {value:.2f} MB on disk."),
    (
        "generate",
        r"seconds for 8 portraits, (\d+) steps.*",
        "Eight portraits in one batch, each with its own adapter, {1} guided steps: {value:.1f} s.",
    ),
    (
        "serve",
        r"(\d+) people at once.*",
        "Portraits of {1} people at once: {value:.1f} times the images per second of stock diffusers, "
        "which serves one adapter at a time.",
    ),
    (
        "serve",
        r"(\d+) adapters: % .*",
        "Requests for {1} different adapters: {value:.0f} % of the throughput of requests for one adapter.",
    ),
    (
        "train-together",
        r"standard, 6 \+ 2 rows: times.*",
        "Eight people trained in one loop with the default recipe: {value:.2f} times the speed of one after another.",
    ),
    (
        "jobs-crash",
        r"(\d+) jobs, (\d+) kills: lost",
        "{1} training jobs while processes are killed {2} times: {value:.0f} jobs lost.",
    ),
)

# subject -> bench -> what the bench does, in one line
SUBJECTS: dict[str, dict[str, str]] = {
    "Installation": {
        "demo": "`likeness demo` from start to end: check, prepare, train, generate, report.",
        "fresh-clone": "`git clone`, `make demo`, until the first portrait is written.",
        "suite": "`make test` from start to end.",
    },
    "Making images": {
        "generate": "Eight people's portraits in one batch.",
        "serve": "A real `likeness serve` over loopback. Baseline: stock diffusers, one adapter at a time, "
        "on the same machine. "
        "Overload: four times more requests than the server can answer, for a minute.",
        "launches": "Kernels per denoising and training step, counted on fake tensors at the published sizes.",
        "mixed-forward": "One U-Net forward with eight adapters. Baselines: PEFT's `set_adapter`, and fusing "
        "the adapter into the "
        "weights and back, once per person.",
        "engine-many": "Many different adapters against one adapter, and "
        "against adapters that are all in slots already.",
        "engine-cold": "An adapter that is on disk only, and the host memory of one more adapter.",
        "engine-exact": "Images in a mixed batch against the same images alone.",
    },
    "Training": {
        "comparison": "A training step of diffusers' DreamBooth script, of the reference's recipe, and of ours, alone "
        "and together, each in a process of its own. Baseline: the script, which the reader fetches.",
        "train-together": "Eight people in one training loop. Baseline: the same trainings one after another. Rows are "
        "photographs + class images per person and step.",
        "adapter-size": "One adapter on disk.",
        "plans": "Memory of a training of one person at the published sizes, counted on fake tensors.",
    },
    "Training service": {
        "jobs-crash": "Workers, trainers and the server are killed with SIGKILL at random while jobs run.",
        "jobs-outage": "The database is stopped while jobs run.",
        "jobs-latency": "Reaction times of queue and workers.",
        "jobs-speed": "Eight jobs at once against one at a time, through the whole service.",
    },
    "The web app, in Chromium against a real `likeness serve` over loopback": {
        "web-page": "The first page, without a cache.",
        "web-coach": "Frames of a camera, judged one after the other.",
        "web-upload": "Twelve photographs of 12 megapixels, one request each, one after the other.",
        "web-gallery": "The studio with 1,000 kept images, scrolled to the end.",
        "web-journey": "From the first page to a portrait of the example person, with the default recipe.",
    },
    "NVIDIA Triton": {
        "triton": "One engine behind thin Triton models, on a real tritonserver. "
        "Baseline: one whole pipeline per model. "
        "*Hop*: the way from a model's stub to the engine and back.",
    },
    "A cluster": {
        "cluster-simulation": "1,000 replicas and 1,000,000 adapters, simulated with the routing functions themselves: "
        "adapters by Zipf's law, kills, a deploy, growth.",
        "ray-hop": "Images of a replica on a local Ray, one after the other, against an engine in the same process.",
        "ray-two": "16 images at once on two replicas of one thread, against one.",
        "ray-warm": "Requests for 10,000 adapters by Zipf's law on four replicas of a tiny base.",
        "ray-kill": "200 requests while the busiest of three replicas is killed every 5 s.",
        "ray-blend": "Eight people's images at once, with two adapters each against one.",
        "shared-device": "Images and a training on one core, which stands for a device that both share.",
    },
}

# claim (a pattern) -> plain words; a claim without an entry stands as it is
WORDING = (
    (r"standard: MB of the folder", "size with the recipe `standard`, MB"),
    (r"seconds, start to end", "duration, s"),
    (r"GB at the peak", "peak memory of the process tree, GB"),
    (r"seconds to the first portrait", "time to the first portrait, s"),
    (r"seconds of `make test`, (\d+) tests", r"duration of \1 tests, s"),
    (r"seconds for 8 portraits, (\d+) steps, guided", r"8 portraits, \1 guided steps, s"),
    (r"standard, (\d+) \+ (\d+) rows: times faster together", r"\1 + \2 rows: speed-up over one after another"),
    (
        r"standard, (\d+) \+ (\d+) rows: largest relative difference: (.*)",
        r"\1 + \2 rows: \3, largest relative difference to training alone",
    ),
    (r"(.*): times faster than (\w+)", r"\1: speed-up over `\2`"),
    (r"(.*): % of two adapters a row over one", r"\1: % slower with two adapters a row than with one"),
    (r"(.*): % over the batch without adapters", r"\1: % slower than the same batch without adapters"),
    (
        r"largest difference from the solo run, float32, range \[0, 1\]",
        "largest pixel difference to the image alone, of [0, 1]",
    ),
    (
        r"base weights have the same hash after (\d+) swaps \(1 = yes\)",
        r"base weights unchanged after \1 adapter swaps (1: yes)",
    ),
    (r"(?:hop|kill|warm|two|blend): (.*)", r"\1"),
    (r"(\d+ jobs, \d+ kills|database away for \d+ s): lost", r"\1: jobs lost"),
    (r"(\d+ jobs, \d+ kills|database away for \d+ s): finished twice", r"\1: jobs that finished twice"),
    (r"(.*): jobs that a kill met in training and that went on", r"\1: jobs that resumed after a kill in training"),
    (r"(.*): steps repeated at a kill", r"\1: largest number of steps repeated after a kill"),
    (
        r"(\d+) people at once: times the images a second of one at a time",
        r"\1 people at once: speed-up over one at a time",
    ),
    (r"(\d+) adapters: % of the throughput of one", r"\1 adapters: throughput, % of that with one adapter"),
    (r"overload: answers that are neither pictures nor 429 or 503", "overload: answers other than images, 429 and 503"),
    (r"overload: slowest picture, s \(deadline (\d+)\)", r"overload: slowest image, s (deadline \1 s)"),
    (
        r"overload: % of memory more in the second half than in the first",
        "overload: memory growth, second half over first, %",
    ),
    (
        r"overload: seconds of the first request after, over those alone",
        "first request after the overload, times its usual duration",
    ),
    (r"ms that a cold adapter adds to the first step, p99", "delay of the first step by loading the adapter, p99, ms"),
    (r"% that a further adapter takes beyond its own bytes", "memory of one more adapter beyond its own size, %"),
    (r"(\d+) adapters: throughput against one", r"\1 adapters: throughput, times that with one adapter"),
    (
        r"(\d+) adapters: throughput against all hot",
        r"\1 adapters by Zipf's law: throughput, times that with all adapters in slots",
    ),
    (
        r"MB that memory grows in the second half, host cache not counted",
        "memory growth in the second half without the host cache, MB",
    ),
    (r"MB of memory per further model", "memory of one more model, MB"),
    (
        r"memory per further model, share of a whole pipeline's",
        "memory of one more model, times that of a whole pipeline",
    ),
    (r"s to load a further model", "loading one more model, s"),
    (r"s of that which are ours", "of that, in our code, s"),
    (
        r"(\d+) people invoked at once: times the images a second of one after another",
        r"\1 people at once: speed-up over one after another",
    ),
    (r"ms of the hop with a 512 px image, (p\d+)", r"hop with a 512 px image, \1, ms"),
    (r"ms that Triton answers later for it, (p\d+)", r"latency that the hop adds to Triton's answer, \1, ms"),
    (
        r"engine killed with (\d+) requests: not begun, and not answered",
        r"engine killed with \1 requests: queued requests without an image",
    ),
    (
        r"engine killed with (\d+) requests: begun, and without one clear error",
        r"engine killed with \1 requests: running requests without exactly one error",
    ),
    (
        r"engine killed with (\d+) requests: s until .*",
        r"engine killed with \1 requests: all answered and the next image made, s",
    ),
    (r"s submit while a training runs, p99", "submitting a job during a training, p99, s"),
    (r"s from a cancel to the next job in its slot", "cancellation to the next job in the slot, s"),
    (r"s from a worker's death to another's going on", "death of a worker to its jobs running on another, s"),
    (r"times the jobs an hour, 8 at once against 1", "speed-up in jobs per hour, 8 at once over 1"),
)
