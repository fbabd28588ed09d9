"""A very small study on rendered clips, made once a session: 4 clips of 5 frames an expression."""

import signal

import pytest

# a shell that starts a job in the background has it ignore Ctrl-C, and so would everything that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

PROFILE = """
summary = "for the tests"
[data]
source = "embedded"
render_size = 48
clip_frames = [4, 5]
train_clips = { DFEW = 42, FERV39k = 42 }
test_clips = { DFEW = 21, FERV39k = 21 }
ravdess_actors = 1
affwild2_videos = 2
affwild2_frames = 20
disfa_subjects = 3
disfa_frames = 20
[estimator]
epochs = 1
[training]
size = "tiny"
epochs = 3
num_frames = 8
stored_frames = 8
image_size = 48
precision = "float32"
device = "cpu"
workers = 1
[pretraining]
epochs = 1
mask_ratio = 0.75
[grid]
models = ["m3dfel", "former_dfer"]
datasets = ["DFEW", "FERV39k"]
knowledge_datasets = ["DFEW", "FERV39k"]
au_ratios = [0.0, 0.25]
[recognition]
size = "estimator"
image_size = 48
initialisation = "estimator"
window = 4
segments = 2
epochs = 1
windows = [2, 4]
segment_counts = [1, 2]
"""


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    from audfer.study.profiles import load_profile
    from audfer.study.study import Study

    root = tmp_path_factory.mktemp("study")
    (root / "tests.toml").write_text(PROFILE)
    return Study(load_profile(str(root / "tests.toml")), root / "work", root / "figures")


@pytest.fixture(scope="session")
def fresh_process():
    """``fresh_process(target, arguments)`` -> a process that knows nothing of this one; not started, importing paid
    once.
    """
    from multiprocessing import get_context

    context = get_context("forkserver")
    context.set_forkserver_preload(["audfer.training.records"])
    return lambda target, arguments: context.Process(target=target, args=arguments, daemon=True)
