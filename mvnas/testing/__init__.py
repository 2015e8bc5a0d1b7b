"""Contract suites: what must hold of a part that plugs into mvnas, as tests for its author to run.

- `mvnas.testing.backend.BackendContract`: a runtime
- `mvnas.testing.backend.FormatContract`: a runtime whose files are shipped
- `mvnas.testing.block.BlockContract`: a block
- `mvnas.testing.cost.CostContract`: a cost
- `mvnas.testing.dataset.DatasetContract`: a dataset
- `mvnas.testing.engine.EngineContract`: a way to run trainings
- `mvnas.testing.op.OpContract`: an op, its torch form and what it becomes in files
- `mvnas.testing.strategy.StrategyContract`: a strategy
- `mvnas.testing.task.TaskContract`: a task
- `mvnas.testing.technique.TechniqueContract`: a technique

Each is a class. In a test file of yours, derive a class from it whose name begins with `Test`, say how your part is
made or what it is called, as the suite's own docstring shows, and run pytest:

    from mvnas.testing.strategy import StrategyContract

    class TestEvolution(StrategyContract):
        def make(self, context):
            return Strategy(context)

Importing a suite needs pytest, which is not among the dependencies of mvnas.
"""
