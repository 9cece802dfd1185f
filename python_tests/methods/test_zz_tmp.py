import time

import pytest


@pytest.mark.parametrize("args", [dict(steps=220, people=8, rate=2e-3), dict(steps=90, people=8, rate=2e-3, stem_stride=2), dict(steps=100, people=4, rate=1e-3)])
def test_x(trained, args):
    s = time.process_time()
    r = trained("tokenpose_b", depth=1, **args)
    print(args, r[1:], time.process_time() - s, flush=True)
