import subprocess
import sys


def test_evaluation_does_not_load_datasets_nor_evaluate():
    code = "import sys, ct_hf.evaluation; sys.exit('datasets' in sys.modules or 'evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
