"""Table 4: what each loss contributes to the geodesic error.

python table4.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from common import parse
from tables import ALL, Ablation, ablate

ROWS = (
    ALL,
    Ablation("without L_pseudo", "27.3", "no-pseudo", train=("--pseudo", "0")),
    Ablation("without L_dist", "25.8", "no-distance", train=("--distance", "0")),
    Ablation("without L_eq", "25.6", "no-equivariance", train=("--equivariance", "0")),
    Ablation("without L_cyc", "25.8", "no-cycle", train=("--cycle", "0")),
    Ablation(
        "without L_eq and L_cyc",
        "26.1",
        "no-equivariance-no-cycle",
        train=("--equivariance", "0", "--cycle", "0"),
    ),
)


def main() -> None:
    ablate(parse(__doc__, small=True), "table4", "Table 4: the losses", ROWS)


if __name__ == "__main__":
    main()
