"""Every measurement, one after the other: python -m bench [--save] [NAME ...]."""

import subprocess
import sys

NAMES = (
    "adapter_size",
    "mixed_forward",
    "train_together",
    "launches",
    "plans",
    "gpu",
    "generate",
    "engine_cold",
    "engine_exact",
    "engine_many",
    "serve",
    "triton",
    "cluster_simulation",
    "ray_serve",
    "shared_device",
    "jobs",
    "demo",
    "fresh_clone",
    "web",
    "suite",
)


def main() -> None:
    chosen = [word for word in sys.argv[1:] if not word.startswith("-")]
    flags = [word for word in sys.argv[1:] if word.startswith("-")]
    if set(flags) - {"--save"} or set(chosen) - set(NAMES):
        sys.exit(f"expected --save and any of {', '.join(NAMES)}")
    for name in chosen or NAMES:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"bench.{name}", *flags], check=True)


if __name__ == "__main__":
    main()
