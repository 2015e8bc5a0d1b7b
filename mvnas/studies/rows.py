"""Optuna's tables, read and written in bulk.

Optuna handles each row as an object, 430,000 of them for a study of 10,000 candidates (docs/scaling.md). What is
overridden here is private to Optuna 5.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from copy import deepcopy as copies
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import and_, insert, or_, select
from sqlalchemy.orm import Session

from mvnas.studies.faults import DECODING, readable, reason


class Rows(RDBStorage):
    """Optuna's storage, which reads and writes trials in bulk, and of those in training reads no more than whether they
    still are.

    Trials do not change until they end.
    """

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except BaseException:
            if hasattr(self, "scoped_session"):
                self.scoped_session.remove()
                self.engine.dispose()
            raise

    @staticmethod
    def _fill_storage_url_template(template: str) -> str:
        return template  # whose braces are letters of a name

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        table = models.TrialModel
        known = max(included_trial_ids, default=trial_id_greater_than)
        changed = or_(
            table.trial_id > max(known, trial_id_greater_than),
            and_(table.trial_id.in_(included_trial_ids), table.state != TrialState.RUNNING),
        )
        mine = [table.study_id == study_id, changed]
        with Session(self.engine) as database:
            rows: Sequence[Any] = database.scalars(select(table).where(*mine).order_by(table.trial_id)).all()
            if not rows:
                return []
            trials = {
                row.trial_id: FrozenTrial(
                    number=row.number,
                    state=row.state,
                    value=None,
                    datetime_start=row.datetime_start,
                    datetime_complete=row.datetime_complete,
                    params={},
                    distributions={},
                    user_attrs={},
                    system_attrs={},
                    intermediate_values={},
                    trial_id=row.trial_id,
                )
                for row in rows
            }

            def parts(of: Any, *columns: str) -> Iterator[tuple[FrozenTrial, Any]]:
                chosen = select(of.trial_id, *(getattr(of, column) for column in columns)).join(table).where(*mine)
                try:
                    found = database.execute(chosen.order_by(next(iter(of.__table__.primary_key)))).all()
                except DECODING as error:  # of a row that nobody names
                    raise StorageInternalError(reason(error)) from None
                return ((trials[row[0]], row) for row in found if row[0] in trials)

            values: dict[int, dict[int, float]] = {}
            trial = next(iter(trials.values()))
            try:
                for trial, (_, name, value, text) in parts(
                    models.TrialParamModel, "param_name", "param_value", "distribution_json"
                ):
                    choice = _distribution(text)
                    trial.distributions[name] = choice
                    trial.params[name] = choice.to_external_repr(value)
                for trial, (_, objective, value, kind) in parts(
                    models.TrialValueModel, "objective", "value", "value_type"
                ):
                    told = models.TrialValueModel.stored_repr_to_value(value, kind)
                    values.setdefault(trial._trial_id, {})[objective] = told
                for identity, found in values.items():
                    trials[identity].values = [found[objective] for objective in sorted(found)]
                for trial, (_, key, text) in parts(models.TrialUserAttributeModel, "key", "value_json"):
                    trial.user_attrs[key] = json.loads(text)
                for trial, (_, key, text) in parts(models.TrialSystemAttributeModel, "key", "value_json"):
                    trial.system_attrs[key] = json.loads(text)
                of = models.TrialIntermediateValueModel
                for trial, (_, step, value, kind) in parts(of, "step", "intermediate_value", "intermediate_value_type"):
                    trial.intermediate_values[step] = of.stored_repr_to_intermediate_value(value, kind)
            except DECODING as error:
                raise ValueError(f"trial {trial.number}: {reason(error)}") from error
        return [trial for trial in trials.values() if states is None or trial.state in states]

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        made = template_trial
        if made is None or made.state.is_finished():
            return super()._get_prepared_new_trial(study_id, made, session)
        trial = models.TrialModel(study_id=study_id, state=made.state, datetime_start=made.datetime_start)
        session.add(trial)
        session.flush()
        params = [
            {
                "param_name": name,
                "param_value": choice.to_internal_repr(made.params[name]),
                "distribution_json": distribution_to_json(choice),
            }
            for name, choice in made.distributions.items()
        ]
        user, system = (
            [{"key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]
            for attrs in (made.user_attrs, made.system_attrs)
        )
        for table, rows in (
            (models.TrialParamModel, params),
            (models.TrialUserAttributeModel, user),
            (models.TrialSystemAttributeModel, system),
        ):
            if rows:
                session.execute(insert(table), [{"trial_id": trial.trial_id, **row} for row in rows])
        trial.number = trial.count_past_trials(session)
        return trial


@cache
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


class Trials(_CachedStorage):
    """Optuna's memory of the trials that were read; those of a file are not read again while nobody has written it.

    Each is checked by `check` when it is read.
    """

    def __init__(self, backend: RDBStorage, place: str, file: sqlite3.Connection | None = None) -> None:
        super().__init__(backend)
        self.check: Callable[[FrozenTrial], None] = lambda trial: None
        self._place = place
        self._known: dict[
            int, tuple[int | None, list[FrozenTrial]]
        ] = {}  # of each study: when it was read, and in order
        self._file = file
        if file:
            weakref.finalize(self, file.close)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        version: int | None = None
        when, trials = self._known.get(study_id, (None, []))
        with readable(self._place):
            if self._file:
                version = self._file.execute("PRAGMA data_version").fetchone()[0]  # changes with every commit of others
            if version is None or version != when:
                self._read_trials_from_remote_storage(study_id)
                known = self._studies[study_id].trials
                trials = [known[number] for number in sorted(known)]
                if trials and trials[-1].number != len(trials) - 1:
                    raise LookupError(f"of trials 0 to {trials[-1].number} there are {len(trials)}")
                self._known[study_id] = version, trials
        trials = [trial for trial in trials if states is None or trial.state in states]
        return copies(trials) if deepcopy else trials

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            self.check(trial)
        super()._add_trials_to_cache(study_id, trials)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        with readable(self._place):
            return super().get_study_user_attrs(study_id)
