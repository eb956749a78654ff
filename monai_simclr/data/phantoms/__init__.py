"""Chest phantoms: radiographs drawn from a seed, for tests, tutorials and benchmarks; never evidence about patients."""

from monai_simclr.data.phantoms.draw import FINDINGS as FINDINGS
from monai_simclr.data.phantoms.draw import Phantom as Phantom
from monai_simclr.data.phantoms.draw import draw_phantom as draw_phantom
from monai_simclr.data.phantoms.draw import n_films_of_patient as n_films_of_patient
from monai_simclr.data.phantoms.files import phantom_to_dicom as phantom_to_dicom
from monai_simclr.data.phantoms.files import write_dicom_phantoms as write_dicom_phantoms
from monai_simclr.data.phantoms.files import write_nih_phantoms as write_nih_phantoms
