import subprocess
import sys


def test_evaluation_does_not_load_datasets_nor_evaluate_nor_matplotlib():
    code = "import sys, ct_hf.evaluation; sys.exit(bool({'datasets', 'evaluate', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
