def test_evaluation_does_not_load_datasets_nor_evaluate_nor_matplotlib(fresh_python, tmp_path):
    code = "import sys, ct_hf.evaluation; print(sorted({'datasets', 'evaluate', 'matplotlib'} & set(sys.modules)))"
    assert fresh_python(code, tmp_path) == "[]\n"
