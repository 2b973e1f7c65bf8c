"""Many images on many machines: each process does one share of them and writes a part of the file; `join`
makes the file of the parts.

Shares are runs of the images in the order of their names, so that parts are joined one after the other, in
the memory of one image. Under torchrun the shares are its ranks', and the parts are joined when all are
there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shic_cli import __version__
from shic_cli.base.errors import Failures, InputError, PartialError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.files.atomic import atomic, check_target, first_difference

if TYPE_CHECKING:
    from shic_cli.files.arrays import Header
    from shic_cli.files.items import ItemWriter

T = TypeVar("T")
TORCHRUN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)  # what it tells the processes that it starts
NAME = re.compile(r"(.+)\.part-\d+-of-\d+(\.\w+)")


@dataclass(frozen=True)
class Part:
    """Share `number`, from 1, of `count` of a stage's images; `ranked`: that of a rank of torchrun's, which
    all end together.
    """

    number: int = 1
    count: int = 1
    ranked: bool = False

    @classmethod
    def parse(cls, text: str) -> Part:
        """From `I/N`; SettingError unless 1 <= I <= N."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise SettingError(f"--shard {text}: is no share", "give I/N, the I-th of N shares: 1/8 to 8/8")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_rank(cls) -> Part:
        """The share of this process: its rank's under torchrun, else the whole."""
        if not all(name in os.environ for name in TORCHRUN):
            return WHOLE
        return cls(int(os.environ["RANK"]) + 1, int(os.environ["WORLD_SIZE"]), ranked=True)

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    @property
    def is_first(self) -> bool:
        return self.number == 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This share of `items`: a run of them, as long as the others' or one longer."""
        start, end = (len(items) * i // self.count for i in (self.number - 1, self.number))
        return items if self.is_whole else items[start:end]

    def path(self, whole: Path) -> Path:
        """The file of this share, beside the `whole` one."""
        return (
            whole
            if self.is_whole
            else whole.with_name(f"{whole.stem}.part-{self.number}-of-{self.count}{whole.suffix}")
        )

    def writer(
        self, path: Path, kind: str, *, params: dict[str, Any], overwrite: bool = False, **rest: Any
    ) -> ItemWriter | Finished:
        """What writes this share of the file `path`, as ItemWriter, and is finished already where an earlier
        run has written it.

        A rank's part that is there is always of this run's settings or in its way: the whole file is what
        --overwrite is about.
        """
        from shic_cli.files.items import ItemWriter

        path = Path(path)
        if self.is_whole:
            return ItemWriter(path, kind, params=params, overwrite=overwrite, **rest)
        check_target(path, overwrite)
        params = {**params, "shard": [self.number, self.count]}
        header = {"kind": kind, "params": params, "sources": rest["sources"], "attrs": rest["attrs"]}
        if (self.ranked or not overwrite) and (done := Finished.find(self.path(path), header, overwrite)):
            return done
        return ItemWriter(self.path(path), kind, params=params, overwrite=overwrite, **rest)

    def end(self, path: Path, failures: Failures, total: int, overwrite: bool = False) -> None:
        """To be called when the share is written: names what failed, and under torchrun joins the parts of
        all ranks to `path`.

        PartialError too where an earlier run wrote the part and some inputs had failed then.
        """
        if self.is_whole or not self.ranked:
            share = len(self.of(range(total)))
            failures.report(share)
            if not self.is_whole and (lacking := share - _count(self.path(Path(path)))):
                fact = f"{self.path(Path(path))}: {lacking} of {share} inputs failed when it was made"
                raise PartialError(fact, "the rest is written; give --overwrite to try them again")
            return
        from shic_cli.base.ranks import connect, gather

        connect(self.count)
        shares = gather((failures.names, failures.first))
        if not self.is_first:
            return
        failures.names = [name for names, _ in shares for name in names]
        failures.first = next((first for _, first in shares if first), None)
        failures.check(total)
        parts = [Part(number, self.count).path(Path(path)) for number in range(1, self.count + 1)]
        join(parts, Path(path), overwrite)
        for part in parts:
            part.unlink()
        failures.report(total)


WHOLE = Part()


class Finished:
    """In place of the writer of a part that is there: it holds every image."""

    def __init__(self, header: Header) -> None:
        self.header = {"params": dict(header.params)}

    @classmethod
    def find(cls, path: Path, wanted: dict[str, Any], overwrite: bool) -> Finished | None:
        """The part `path` where it is there with the header `wanted`; InputError if it has another and is not
        to be overwritten.
        """
        if not path.exists():
            return None
        header = _read_header(path)
        difference = first_difference(
            _settings(header), json.loads(json.dumps(wanted | {"shic_version": __version__}))
        )
        if not difference:
            return cls(header)
        if overwrite:
            return None
        raise InputError(
            f"{path}: is there with other settings ({difference})", "remove it, or give --overwrite"
        )

    def __contains__(self, name: str) -> bool:
        return True

    def __len__(self) -> int:
        return 1

    def __enter__(self) -> Finished:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def whole_path(part: Path) -> Path:
    """The file that `part` is a part of, by its name; InputError if that is no part's."""
    found = NAME.fullmatch(part.name)
    if not found:
        raise InputError(
            f"{part}: is not called NAME.part-I-of-N.h5, as parts are", "give the file to write with -o"
        )
    return part.with_name(found[1] + found[2])


def join(paths: Sequence[Path], output: Path, overwrite: bool = False, track: Track = plain_track) -> None:
    """Write the file that one process would have written from its parts, without unpacking their data. The
    parts are kept.

    InputError when one is missing or comes twice, or when they differ in settings, sources or template, or in
    the version of shic.
    """
    from shic_cli.files import hdf5
    from shic_cli.files.arrays import read_arrays, write_fields, write_header
    from shic_cli.files.layouts import LAYOUTS

    check_target(output, overwrite)
    headers = _in_order(paths)
    if part := next((path for path in headers if output.exists() and path.samefile(output)), None):
        raise InputError(f"{part}: is a part, and would be replaced", "name another file with -o")
    first, header = next(iter(headers.items()))
    merged = _settings(header) | {"params": _merged(headers.values())}
    root = read_arrays(first, header.kind)[0]
    with atomic(output, overwrite) as partial, hdf5.created(partial) as (file, sink):
        write_header(file, header.kind, merged["params"], header.sources, header.attrs)
        write_fields(file, {name: LAYOUTS[header.kind].fields[name] for name in root}, root, str(output))
        items, last, count = file.create_group("items"), "", 0
        for path in track(list(headers), len(headers), "join"):
            if any((other != root[name]).any() for name, other in read_arrays(path, header.kind)[0].items()):
                raise InputError(
                    f"{path}: its basis is not that of {first}", "make it again with the same settings"
                )
            for name, group in _items(path, header.kind):
                if name <= last:
                    raise InputError(
                        f"{path}: {name} is not in its share", "make it again with the same photos"
                    )
                group.file.copy(group, items, f"{count:08d}")
                sink.check()
                last, count = name, count + 1
        if not count:
            raise InputError(
                f"{output}: its {len(headers)} parts hold nothing",
                "look at what was said when they were made",
            )


def _read_header(path: Path) -> Header:
    """The header of a part; InputError if it is none."""
    from shic_cli.files.arrays import opened
    from shic_cli.files.layouts import LAYOUTS

    with opened(path) as (_, header):
        shard = header.params.get("shard")
        if not (
            isinstance(shard, list)
            and len(shard) == 2
            and all(type(each) is int for each in shard)
            and 1 <= shard[0] <= shard[1]
        ):
            raise InputError(f"{path}: is no part of a file", "give files that were made with --shard")
        if not LAYOUTS[header.kind].items:
            raise InputError(f"{path}: {header.kind} has no parts", "give files that were made with --shard")
    return header


def _count(part: Path) -> int:
    """How many inputs a part is the end of: those that it holds, and the pictures that were dropped."""
    from shic_cli.files.items import ItemReader

    header = _read_header(part)
    return len(ItemReader(part, header.kind)) + header.params.get("dropped", 0)


def _settings(header: Header) -> dict[str, Any]:
    """What a run is known by, as its journal has it; how many pictures were dropped comes out of it."""
    params = {key: value for key, value in header.params.items() if key != "dropped"}
    found = {"kind": header.kind, "params": params, "sources": header.sources, "attrs": header.attrs}
    return found | {"shic_version": header.shic_version}


def _in_order(paths: Sequence[Path]) -> dict[Path, Header]:
    """The headers of all parts in the order of their shares; InputError if they are not those of one file,
    each once.
    """
    if missing := next((path for path in paths if not path.exists()), None):
        raise InputError(f"{missing}: is missing", "make it with its --shard, then join again")
    found: dict[int, Path] = {}
    headers = {path: _read_header(path) for path in dict.fromkeys(paths)}
    for path, header in headers.items():
        number, count = header.params["shard"]
        other = found.setdefault(number, path)
        if other != path:
            raise InputError(f"{path}: is part {number} like {other}", "give each part once")
        first = next(iter(headers))
        if difference := first_difference(_alike(headers[first]), _alike(header)):
            raise InputError(
                f"{path}: has other settings than {first} ({difference})",
                "parts of one file are made by one line",
            )
    for number in range(1, count + 1):
        if number not in found:
            name = (
                Part(number, count).path(whole_path(path))
                if NAME.fullmatch(path.name)
                else f"part {number} of {count}"
            )
            raise InputError(f"{name}: is missing", f"make it with --shard {number}/{count}, then join again")
    return {found[number]: headers[found[number]] for number in range(1, count + 1)}


def _alike(header: Header) -> dict[str, Any]:
    """What all parts of a file have in common."""
    settings = _settings(header)
    return settings | {"params": settings["params"] | {"shard": header.params["shard"][1]}}


def _merged(headers: Iterable[Header]) -> dict[str, Any]:
    """The settings of the whole file: those of its parts, and the number of pictures that all of them
    dropped.
    """
    params = {}
    for header in headers:
        dropped = params.get("dropped", 0)
        params = {key: value for key, value in header.params.items() if key != "shard"}
        if "dropped" in params:
            params["dropped"] += dropped
    return params


def _items(path: Path, kind: str) -> Iterator[tuple[str, Any]]:
    """The name and the group of every image of a part, in order; InputError if one holds anything but the
    data sets of its kind.
    """
    from shic_cli.files import hdf5
    from shic_cli.files.arrays import checked_fields, opened
    from shic_cli.files.checks import check_name
    from shic_cli.files.layouts import LAYOUTS

    h5py_group, fields = hdf5.h5py.Group, LAYOUTS[kind].items
    with opened(path, kind) as (file, _):
        items = hdf5.member(file, "items", h5py_group, f"{path}: /items")
        for number in range(0 if items is None else len(items)):
            where = f"{path}: /items/{number:08d}"
            group = hdf5.member(items, f"{number:08d}", h5py_group, where)
            if group is None or set(group) != set(fields) or set(group.attrs) != {"name"}:
                raise InputError(f"{where} is not as shic writes it", hdf5.AGAIN)
            checked_fields(group, fields, where, {})
            yield check_name(hdf5.attribute(group, "name", where), where), group
