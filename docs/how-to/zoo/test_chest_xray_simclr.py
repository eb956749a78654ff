"""The bundle's configs run, on drawn phantoms: ci/unit_tests/test_chest_xray_simclr.py of a pull request to the zoo."""

import os
import shutil
import sys
import tempfile
import unittest

from monai.bundle import ConfigWorkflow
from utils import check_workflow

BUNDLE = "models/chest_xray_simclr"
sys.path.insert(0, BUNDLE)  # the bundle may carry its code (monai-simclr bundle --with-code)


def test_order(test_name1, test_name2):
    def get_order(name):
        return next((i for i, word in enumerate(("pretrain", "train", "cluster", "infer")) if word in name), 4)

    return get_order(test_name1) - get_order(test_name2)


class TestChestXraySimCLR(unittest.TestCase):
    """Small enough for a CPU: 56 px, a quarter of the width, one epoch. Nothing is written into the bundle."""

    @classmethod
    def setUpClass(cls):
        from monai_simclr.data.phantoms import FINDINGS, write_nih_phantoms

        cls.folder = tempfile.mkdtemp()
        cls.archive = str(write_nih_phantoms(os.path.join(cls.folder, "archive"), n_patients=60, size=64))
        cls.settings = {
            "bundle_root": BUNDLE,
            "dataset_dir": cls.archive,
            "findings": list(FINDINGS),
            "size": 56,
            "_meta_#encoder#width": 0.25,
            "num_workers": 0,
        }
        cls.encoder = os.path.join(cls.folder, "encoder.safetensors")
        cls.classifier = os.path.join(cls.folder, "model.pt")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def run_configs(self, names, workflow_type="train", **override):
        configs = [os.path.join(BUNDLE, "configs", f"{name}.json") for name in names]
        workflow = ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=configs,
            logging_file=os.path.join(BUNDLE, "configs/logging.conf"),
            meta_file=os.path.join(BUNDLE, "configs/metadata.json"),
            **self.settings,
            output_dir=os.path.join(self.folder, "_".join(names)),
            **override,
        )
        check_workflow(workflow, check_properties=names != ["cluster"])

    def stores(self):
        return {"store_dir": os.path.join(self.folder, "cache")}

    def test_pretrain_config(self):
        training = {"max_epochs": 1, "batch_size": 16, "probe_interval": 0}
        self.run_configs(["pretrain"], encoder_path=self.encoder, **training, **self.stores())
        assert os.path.isfile(self.encoder)

    def test_train_eval_config(self):
        more = {"encoder_path": self.encoder, "ckpt_path": self.classifier, "n_bootstrap": 20, "label_fraction": 1.0}
        more.update(self.stores())
        self.run_configs(["train"], **more, max_epochs=1, batch_size=8)
        assert os.path.isfile(self.classifier)
        self.run_configs(["train", "evaluate"], **more)
        assert os.path.isfile(os.path.join(self.folder, "train_evaluate", "metrics.json"))

    def test_cluster_config(self):
        more = {"n_bootstrap": 20, "n_seeds": 1, "n_clusters": [4], **self.stores()}
        self.run_configs(["cluster"], encoder_path=self.encoder, **more)

    def test_infer_config(self):
        self.run_configs(["inference"], "infer", ckpt_path=self.classifier)
        with open(os.path.join(self.folder, "inference", "predictions.csv"), encoding="utf-8") as file:
            assert len(file.readlines()) > 60


if __name__ == "__main__":
    loader = unittest.TestLoader()
    loader.sortTestMethodsUsing = test_order
    unittest.main(testLoader=loader)
