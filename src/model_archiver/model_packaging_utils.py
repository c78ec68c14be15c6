"""``ModelExportUtils``: the single steps of packing, for scripts that take them one by one."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from marserve.archive.manifest import MANIFEST_NAME
from marserve.archive.packing import Recipe, check_model_name, collect, tree
from marserve.archive.writer import FORMATS, Source, write_archive

from .manifest_components.manifest import Manifest, RuntimeType
from .manifest_components.model import Model
from .model_archiver_config import ModelArchiverConfig
from .model_archiver_error import ModelArchiverError, old_errors

__all__ = ["Manifest", "Model", "ModelArchiverConfig", "ModelArchiverError", "ModelExportUtils", "RuntimeType"]

#: What scripts read of the original: endings by format, built-in handlers by kind of input, and names in archives.
archiving_options = dict(FORMATS)
model_handlers = {
    "base_handler": "anything",
    "text_classifier": "text",
    "image_classifier": "vision",
    "object_detector": "vision",
    "image_segmenter": "vision",
    "dali_image_classifier": "vision",
    "vllm_handler": "text",
    "trt_llm_handler": "text",
}
MODEL_SERVER_VERSION = "1.0"
MODEL_ARCHIVE_VERSION = "1.0"
MAR_INF, MANIFEST_FILE_NAME = MANIFEST_NAME.split("/")

#: Names by which ``copy_artifacts`` is told a role; what has another name is copied too.
_ROLES = ("handler", "model_file", "serialized_file", "extra_files", "config_file", "requirements-file")
_UNWANTED_FILES = (".pyc", ".DS_Store", ".mar")


class ModelExportUtils:
    """Steps of packing; what they refuse is a ``ModelArchiverError``."""

    @staticmethod
    def get_archive_export_path(export_file_path: str, model_name: str, archive_format: str) -> str:
        """Return where a model of that name is written to."""
        return os.path.join(export_file_path, model_name + FORMATS[archive_format])

    @staticmethod
    def check_mar_already_exists(
        model_name: str, export_file_path: str | None, overwrite: bool, archive_format: str = "default"
    ) -> str:
        """Return the folder to write to; refuses an output that is there, unless it is to be overwritten."""
        folder = os.getcwd() if export_file_path is None else export_file_path
        output = ModelExportUtils.get_archive_export_path(folder, model_name, archive_format)
        if os.path.exists(output) and not overwrite:
            raise ModelArchiverError(
                f"{output} already exists.\n"
                "Please specify --force/-f option to overwrite the model archive output file.\n"
                "See -h/--help for more details."
            )
        return folder

    @staticmethod
    def find_unique(files: Iterable[str], suffix: str) -> str | None:
        """Return the one file that ends with ``suffix``, None without one; refuses several."""
        found = [file for file in files if file.endswith(suffix)]
        if len(found) > 1:
            raise ModelArchiverError(f"Expected only one {suffix} file, found {len(found)}: {', '.join(found)}.")
        return found[0] if found else None

    @staticmethod
    def generate_model(modelcfg: ModelArchiverConfig) -> Model:
        """Return what the manifest will say of the model."""
        return Model(
            model_name=modelcfg.model_name,
            serialized_file=modelcfg.serialized_file,
            handler=modelcfg.handler,
            model_file=modelcfg.model_file,
            model_version=modelcfg.version,
            requirements_file=modelcfg.requirements_file,
            config_file=modelcfg.config_file,
        )

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig) -> str:
        """Return the manifest as JSON."""
        return str(Manifest(config.runtime, ModelExportUtils.generate_model(config)))

    @staticmethod
    def copy_artifacts(model_name: str, runtime: str, **kwargs: str | None) -> str:
        """Copy a model's files into a new folder, and return that.

        Args:
            model_name: its name, which the folder gets too.
            runtime: see ``RuntimeType``.
            kwargs: ``handler``, ``model_file``, ``serialized_file``, ``extra_files``, ``config_file`` and
                ``requirements-file`` with paths; a file under any other name is copied too.

        Raises:
            FileNotFoundError: a file is not there.
        """
        given = {name: path or "" for name, path in kwargs.items()}
        recipe = Recipe(
            model_name=model_name,
            version="",
            runtime=runtime,
            handler=given.get("handler") or "base_handler",  # for which there is no file
            serialized_file=given.get("serialized_file", ""),
            model_file=given.get("model_file", ""),
            extra_files=[
                *(item for item in given.get("extra_files", "").split(",") if item),
                *(path for name, path in given.items() if path and name not in _ROLES),
            ],
            requirements_file=given.get("requirements-file", ""),
            config_file=given.get("config_file", ""),
        )
        folder = Path(tempfile.mkdtemp(prefix=f"{model_name}-"))
        with old_errors():
            contents = collect(recipe)
            del contents.entries[MANIFEST_NAME]
            write_archive(contents.entries, folder, "no-archive", force=True, keep_others=True)
        return str(folder)

    @staticmethod
    def archive(
        export_file: str, model_name: str, model_path: str, manifest: str, archive_format: str = "default"
    ) -> None:
        """Write the files below ``model_path`` and a manifest into the folder ``export_file``, over what is there."""
        entries: dict[str, Source] = dict(tree(Path(model_path), (), follows_links=False))
        entries[MANIFEST_NAME] = manifest.encode()
        output = Path(ModelExportUtils.get_archive_export_path(export_file, model_name, archive_format))
        with old_errors():
            write_archive(entries, output, archive_format, force=True, keep_others=True)

    @staticmethod
    def archive_dir(
        path: str, dst: zipfile.ZipFile | tarfile.TarFile | str, archive_format: str, model_name: str
    ) -> None:
        """Put the files below ``path``, but for a manifest, into an open archive or the folder ``dst``."""
        for name, file in tree(Path(path), (), follows_links=False):
            if isinstance(dst, zipfile.ZipFile):
                dst.write(file, name)
            elif isinstance(dst, tarfile.TarFile):
                dst.add(file, f"{model_name}/{name}")
            else:
                place = Path(dst, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)

    @staticmethod
    def directory_filter(directory: str, unwanted_dirs: Iterable[str]) -> bool:
        """Return whether a folder of that name goes in."""
        return directory not in unwanted_dirs and not directory.startswith(".")

    @staticmethod
    def file_filter(current_file: str, files_to_exclude: Iterable[str]) -> bool:
        """Return whether a file of that name goes in."""
        return current_file not in {*files_to_exclude, "MANIFEST.json"} and not current_file.endswith(_UNWANTED_FILES)

    @staticmethod
    def clean_temp_files(temp_files: Iterable[str]) -> None:
        """Remove files."""
        for file in temp_files:
            os.remove(file)

    @staticmethod
    def make_dir(d: str) -> None:
        """Make a folder, and those above it."""
        os.makedirs(d, exist_ok=True)

    @staticmethod
    def check_model_name_regex_or_exit(model_name: str) -> None:
        """Refuse a name that is not allowed."""
        with old_errors():
            check_model_name(model_name)

    @staticmethod
    def validate_inputs(model_name: str, export_path: str) -> None:
        """Refuse a name that is not allowed, and a folder that is not there."""
        ModelExportUtils.check_model_name_regex_or_exit(model_name)
        if not os.path.isdir(export_path):
            raise ModelArchiverError(
                f"Given export-path {export_path} is not a directory. Point to a valid export-path directory."
            )
