"""Assembly text -> `Kernel`: metadata, instructions with operands and modifiers, labels. Nothing runs here."""

import dataclasses
import re
from functools import cached_property, lru_cache

from .errors import AmdgcnError

_ENCODING = re.compile(r"_(e64_dpp|e32|e64|dpp|sdwa)$")
_LABEL = re.compile(r"([.\w$]+):$")
_INSTRUCTION = re.compile(r"([a-z]\w*)(?:\s+(.*))?$")
_DIRECTIVES = (".loc", ".file", ".cfi_", ".p2align", ".set")
# Operands of these are free text for the scheduler, not registers.
_RAW = ("s_waitcnt", "s_wait_", "s_delay_alu", "s_sendmsg", "s_clause", "s_nop")


@dataclasses.dataclass(frozen=True)
class Operand:
    """One operand: `core` without its source modifiers, which are kept apart."""

    core: str
    neg: bool = False
    abs: bool = False
    sext: bool = False

    @property
    def plain(self) -> bool:
        return not (self.neg or self.abs or self.sext)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction; `name` is `op` without its encoding suffix. `dual` holds both halves of a VOPD instruction."""

    op: str
    operands: tuple[Operand, ...]
    modifiers: dict[str, str]
    text: str
    line: int
    dual: tuple["Instruction", ...] = ()

    @cached_property
    def name(self) -> str:
        return _ENCODING.sub("", self.op)

    @cached_property
    def encoding(self) -> str:
        match = _ENCODING.search(self.op)
        return match[1].removeprefix("e64_") if match else ""

    def fail(self, why: str) -> AmdgcnError:
        return AmdgcnError(f"line {self.line}: `{self.text}`: {why}")


@dataclasses.dataclass(frozen=True)
class Argument:
    """One kernel argument in the kernarg segment."""

    offset: int
    size: int
    kind: str


class Kernel:
    """One parsed kernel. `shared` is its dynamic LDS, `metadata.shared` of a Triton kernel: the text does not say."""

    def __init__(self, text: str, shared: int = 0) -> None:
        self.text = text
        self.arch = _find(r"amdhsa--(gfx\w+)", text)
        self.name = _find(r"\.amdhsa_kernel (\S+)", text)
        self.hsa: dict[str, str] = dict(re.findall(r"^\s*\.amdhsa_(\w+)\s+(\S+)", text, re.M))
        metadata = text[text.index(".amdgpu_metadata") :]
        self.wave_size = int(_find(r"\.wavefront_size:\s+(\d+)", metadata))
        self.num_threads = int(_find(r"\.max_flat_workgroup_size:\s+(\d+)", metadata))
        self.num_waves = self.num_threads // self.wave_size
        self.sgpr_spills = int(_find(r"\.sgpr_spill_count:\s+(\d+)", metadata))
        self.vgpr_spills = int(_find(r"\.vgpr_spill_count:\s+(\d+)", metadata))
        self.scratch_bytes = int(_find(r"\.private_segment_fixed_size:\s+(\d+)", metadata))
        self.shared = shared
        self.lds_bytes = shared + int(_find(r"\.group_segment_fixed_size:\s+(\d+)", metadata))
        self.arguments = _arguments(metadata)
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self._read_body(text)

    @property
    def is_gfx9(self) -> bool:
        return self.arch.startswith("gfx9")

    @property
    def is_gfx12(self) -> bool:
        return self.arch.startswith("gfx12")

    @cached_property
    def num_vgprs(self) -> int:
        """Vector registers of a lane, accumulation registers included: they follow the others in one unified file."""
        return int(self.hsa["next_free_vgpr"])

    @property
    def kernarg_bytes(self) -> int:
        return int(self.hsa["kernarg_size"])

    def check_supported(self) -> None:
        """Raises for what the interpreter cannot run as a whole kernel."""
        if self.scratch_bytes or self.sgpr_spills or self.vgpr_spills:
            raise AmdgcnError(
                f"{self.name}: scratch memory is not modelled ({self.scratch_bytes} bytes, "
                f"{self.sgpr_spills} scalar and {self.vgpr_spills} vector spills)"
            )
        # Mode 0 rounds to nearest even, mode 3 keeps denormals: what every handler here assumes.
        for key, wanted in (
            ("round_mode_32", 0),
            ("round_mode_16_64", 0),
            ("denorm_mode_32", 3),
            ("denorm_mode_16_64", 3),
        ):
            if int(self.hsa[f"float_{key}"]) != wanted:
                raise AmdgcnError(f"{self.name}: float_{key} is {self.hsa[f'float_{key}']}, only {wanted} is modelled")

    def _read_body(self, text: str) -> None:
        start = text.index(f"\n{self.name}:") + 1
        first_line = text.count("\n", 0, start) + 1
        body = text[start : text.index(".Lfunc_end0:")]
        for line, raw in enumerate(body.split("\n"), first_line):
            code = raw.split(";")[0].strip()
            label = _LABEL.match(code)
            if label:
                self.labels[label[1]] = len(self.instructions)
            elif code.startswith("."):
                if not code.startswith(_DIRECTIVES):
                    raise AmdgcnError(f"line {line}: unknown directive `{code}`")
            elif code:
                self.instructions.append(parse_instruction(code, line))


def parse_instruction(code: str, line: int = 0) -> Instruction:
    try:
        parsed = _parsed(code)
    except AmdgcnError as error:
        raise AmdgcnError(f"line {line}: {error}") from error
    halves = tuple(dataclasses.replace(half, line=line) for half in parsed.dual)
    return dataclasses.replace(parsed, line=line, dual=halves)


@lru_cache(maxsize=1 << 16)
def _parsed(code: str) -> Instruction:
    """An instruction without its line: a text stands in many kernels."""
    if "::" in code:
        halves = tuple(_parsed(half.strip().replace("v_dual_", "v_", 1)) for half in code.split("::"))
        return Instruction("v_dual", (), {}, code, 0, halves)
    match = _INSTRUCTION.match(code)
    if not match:
        raise AmdgcnError(f"cannot read `{code}`")
    op, rest = match[1], match[2] or ""
    if op.startswith(_RAW):
        return Instruction(op, (Operand(rest),), {}, code, 0)
    chunks = _split(rest, ",")
    tail: list[str] = []
    if chunks:
        chunks[-1], *tail = _split(chunks[-1], " ")
    modifiers = dict(_modifier(word) for word in tail)
    if len(modifiers) != len(tail):
        raise AmdgcnError(f"repeated modifier in `{code}`")
    return Instruction(op, tuple(_operand(chunk) for chunk in chunks), modifiers, code, 0)


def _modifier(word: str) -> tuple[str, str]:
    name, colon, value = word.partition(":")
    return name, value if colon else "1"


def _operand(text: str) -> Operand:
    """`-|v1|`, `neg(0x1)`, `sext(v2)`: source modifiers, outermost first. `-1` and `-4.0` are constants."""
    flags = {"neg": False, "abs": False, "sext": False}
    while True:
        call = re.fullmatch(r"(neg|abs|sext)\((.*)\)", text)
        if call:
            flags[call[1]], text = True, call[2]
        elif re.match(r"-[^\d.]", text):
            flags["neg"], text = True, text[1:]
        elif text.startswith("|"):
            flags["abs"], text = True, text[1:-1]
        else:
            return Operand(text, **flags)


def _split(text: str, separator: str) -> list[str]:
    """Splits outside brackets and parentheses; empty parts are dropped."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[(") - (char in "])")
        if char == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if not match:
        raise AmdgcnError(f"no `{pattern}` in the assembly text")
    return match[1]


def _arguments(metadata: str) -> list[Argument]:
    section = re.search(r"\.args:(.*?)\n\s+\.group_segment", metadata, re.S)
    if not section:
        return []
    blocks = re.split(r"\n\s+- ", section[1])[1:]
    keys = (r"\.offset:\s+(\d+)", r"\.size:\s+(\d+)", r"\.value_kind:\s+(\w+)")
    return [Argument(int(o), int(s), k) for o, s, k in ([_find(key, block) for key in keys] for block in blocks)]
