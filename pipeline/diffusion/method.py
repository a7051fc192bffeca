"""The method with all its settings: what preset and options come to, and what engine, records and fingerprint use."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.diffusion.sampler import Solver
from pipeline.diffusion.schedule import Schedule, StartRule, chain_from, make_schedule
from pipeline.diffusion.treatment import ESTIMATOR, Rung, Treatment, Treatments


@dataclass(frozen=True)
class Method:
    """How every face of a run is restored."""

    # randomness of the chain, η of Eq. (7)
    eta: float
    # respacing of the 1000 steps, and whether the network is first called below N or at N
    steps: str
    start_rule: StartRule
    # of a chain that every face enters: N, network calls (None: one at every kept step), and the width of the Gaussian
    # whose low frequencies are held
    start_step: int
    calls: int | None
    hold: float
    # rows of a preset's table, which gives each face a treatment of its own; empty: the same chain for every face
    treatment: tuple[Mapping[str, Any], ...] = ()
    solver: Solver = "ddim"
    seed: int = 0
    # the estimator's picture is the restored face
    without_prior: bool = False
    # original step of the last of several calls; None: where the last equal share of the steps begins
    last_step: int | None = None

    @property
    def schedule(self) -> Schedule:
        """The kept steps."""
        return make_schedule(self.steps)

    def treatments(self, schedule: Schedule) -> Treatment | Treatments:
        """What is done with the faces: the same with each, or what the table says for its δ."""
        if self.without_prior:
            return ESTIMATOR
        if not self.treatment:
            return self._chain(schedule, self.start_step, self.calls, self.hold)
        return Treatments(tuple((float(row["above"]), self._of_row(schedule, row)) for row in self.treatment))

    def adjusted(self, settings: Mapping[str, Any]) -> "Method":
        """The method with other settings for one face: `method`, start_step, calls, hold, eta, seed; those there are.

        One that names N, or the method difface, has a chain, whatever the table says.
        """
        own = {name: settings[name] for name in ("eta", "calls", "hold") if name in settings}
        rows = () if "start_step" in settings or settings.get("method") == "difface" else self.treatment
        changed = {name: settings[name] for name in ("start_step", "seed") if name in settings}
        return replace(
            self,
            **own | changed,
            treatment=tuple(dict(row) | (own if "start_step" in row else {}) for row in rows),
            without_prior=settings.get("method") == "estimator" or self.without_prior,
        )

    def _of_row(self, schedule: Schedule, row: Mapping[str, Any]) -> Treatment:
        if "way" in row:
            return Treatment(row["way"])
        return self._chain(schedule, row["start_step"], row["calls"], row["hold"], row.get("eta"))

    def _chain(
        self, schedule: Schedule, start_step: int, calls: int | None, hold: float, eta: float | None = None
    ) -> Treatment:
        chain = chain_from(schedule, start_step, self.start_rule, calls, self.last_step)
        return Treatment("chain", chain, hold, eta)

    def ladder(self, asked: Treatment, side: int) -> list[tuple[Rung, Treatment]]:
        """What is tried with a face of this treatment, `asked` first; after the last it is left as it was.

        side: of the crop, pixels; half of a hold of 0, which holds nothing, is one of side / 64.
        """
        tried: list[tuple[Rung, Treatment]] = [("asked", asked)]
        if asked.chain is not None:
            schedule, chain = self.schedule, asked.chain
            sigma = asked.hold / 2 or side / 64
            tried.append(("held", Treatment("chain", chain, sigma, asked.eta)))
            lower = [int(t) for t in schedule.t[1:] if 2 * t <= schedule.t[chain.start]]
            if lower:
                calls = -(-len(chain.indices) // 2)
                entered = chain_from(schedule, lower[-1], self.start_rule, calls, self.last_step)
                tried.append(("lower_n", Treatment("chain", entered, sigma, asked.eta)))
            tried.append(("estimator", ESTIMATOR))
        return tried

    @property
    def start_steps(self) -> list[int]:
        """Every N at which a face's chain may be entered."""
        return [self.start_step, *(row["start_step"] for row in self.treatment if "start_step" in row)]

    @property
    def network_calls(self) -> int:
        """Network calls of a face; where each is treated by its damage, those of a typical one. 0 without a chain."""
        if not self.start_step:
            return 0
        return len(chain_from(self.schedule, self.start_step, self.start_rule, self.calls).indices)

    @property
    def most_calls(self) -> int:
        """Network calls of the face that takes most."""
        return max((row.get("calls", 0) for row in self.treatment), default=self.network_calls)

    @property
    def resolved(self) -> dict[str, Any]:
        """What options and preset came to, for the fingerprint; lists where JSON has lists."""
        names = ("eta", "steps", "start_rule", "start_step", "calls", "hold")
        rows = [dict(row) for row in self.treatment]
        found = {name: getattr(self, name) for name in names} | {"treatment": rows}
        # outputs that were begun before do not name it
        return found if self.last_step is None else found | {"last_step": self.last_step}

    @property
    def columns(self) -> dict[str, float | int]:
        """Columns of the records that are the same for every face."""
        return {"eta": self.eta, "seed": self.seed}
