"""What is counted in a compiled program's text."""

import jax
import jax.numpy as jnp
import pytest

from ecg_jax.planning import hlo, hlo_text

# Two steps of a loop on a TPU: a fusion that slices a table, a copy onto the chip, an all-reduce of
# four devices, and a loop of three whose body updates an array in place.
TEXT = """HloModule m, is_scheduled=true

%fused (p0: f32[1000,8], p1: s32[]) -> f32[4,8] {
  %p0 = f32[1000,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[4,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={4,8}
}

%write (q0: f32[64,8], q1: f32[1,8], q2: s32[]) -> f32[64,8] {
  %q0 = f32[64,8]{1,0} parameter(0)
  %q1 = f32[1,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %put = f32[64,8]{1,0} dynamic-update-slice(%q0, %q1, %q2, %none)
}

%inner (i: (s32[], f32[64,8], f32[1,8])) -> (s32[], f32[64,8], f32[1,8]) {
  %i = (s32[], f32[64,8]{1,0}, f32[1,8]{1,0}) parameter(0)
  %at = s32[] get-tuple-element(%i), index=0
  %all = f32[64,8]{1,0} get-tuple-element(%i), index=1
  %row = f32[1,8]{1,0} get-tuple-element(%i), index=2
  %new = f32[64,8]{1,0} fusion(%all, %row, %at), kind=kLoop, calls=%write
  ROOT %o = (s32[], f32[64,8]{1,0}, f32[1,8]{1,0}) tuple(%at, %new, %row)
}

%small (j: (s32[], f32[64,8], f32[1,8])) -> pred[] {
  %j = (s32[], f32[64,8]{1,0}, f32[1,8]{1,0}) parameter(0)
  %k = s32[] get-tuple-element(%j), index=0
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%k, %three), direction=LT
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%step (s: (f32[1000,8], s32[], (s32[], f32[64,8], f32[1,8]))) -> (f32[1000,8]) {
  %s = (f32[1000,8]{1,0}, s32[], (s32[], f32[64,8]{1,0}, f32[1,8]{1,0})) parameter(0)
  %table = f32[1000,8]{1,0} get-tuple-element(%s), index=0
  %n = s32[] get-tuple-element(%s), index=1
  %nest = (s32[], f32[64,8]{1,0}, f32[1,8]{1,0}) get-tuple-element(%s), index=2
  %drawn = f32[4,8]{1,0} fusion(%table, %n), kind=kLoop, calls=%fused
  %near = (f32[4,8]{1,0:S(1)}, f32[4,8]{1,0}, u32[]{:S(2)}) copy-start(%drawn)
  %done = f32[4,8]{1,0:S(1)} copy-done(%near)
  %sum = f32[4,8]{1,0} all-reduce(%drawn), replica_groups=[1,4]<=[4], to_apply=%add
  %twice = f32[4,8]{1,0} add(%done, %sum)
  %loop = (s32[], f32[64,8]{1,0}, f32[1,8]{1,0}) while(%nest), condition=%small, body=%inner
  ROOT %out = (f32[1000,8]{1,0}) tuple(%table)
}

%more (t: (f32[1000,8])) -> pred[] {
  %t = (f32[1000,8]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: (f32[1000,8], s32[], (s32[], f32[64,8], f32[1,8]))) -> (f32[1000,8]) {
  %x = (f32[1000,8]{1,0}, s32[], (s32[], f32[64,8]{1,0}, f32[1,8]{1,0})) parameter(0)
  ROOT %go = (f32[1000,8]{1,0}) while(%x), condition=%more, body=%step
}
"""


def test_a_step_of_a_program():
    counts = hlo.count(TEXT, steps=2, devices=4)
    A, row = 4 * 4 * 8, 4 * 8
    drawn = A + 4 + A  # the slice is read, not the table; an index; the result
    near, reduced, twice = A, 2 * A, 2 * A  # of what is on the chip, only what comes from memory
    nested = 3 * (row + row + 4 + row)  # in place: the row is read, and written where it belongs
    assert counts.bytes == drawn + near + reduced + twice + nested
    assert counts.kernels == 3 + 3
    assert counts.collectives == (hlo.Collective("all-reduce", 4, A, 1.5 * A, 1.0),)
    assert counts.whole == counts.bytes - near + A
    assert hlo.of_step(TEXT, devices=4) == counts


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("bf16[128,5000,12]{2,1,0:T(8,128)(2,1)}", 128 * 5000 * 128 * 2),
        ("bf16[128,5000,12]{0,1,2:T(8,128)(2,1)}", 128 * 5000 * 12 * 2),
        ("f32[64]{0:T(128)}", 512),
        ("f32[64]{0:T(128)S(1)}", 0),
        ("(pred[3]{0}, s32[])", 7),
    ],
)
def test_bytes_as_they_lie_in_memory(type_, size):
    assert hlo_text.stored(type_, chip=False) == size


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ("replica_groups={{0,1},{2,3}}, x=1", 2),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=mesh['a'=16,'b'=2] {'a','b'}", 32),
        ("replica_groups={}", 16),
    ],
)
def test_groups(attributes, size):
    assert hlo_text.group_size(attributes, 16) == size


def test_a_sum_of_which_each_device_keeps_a_part():
    text = """HloModule m

%both (p: f32[64,8]) -> f32[16,8] {
  %p = f32[64,8]{1,0} parameter(0)
  %all = f32[64,8]{1,0} all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%add
  %i = s32[] constant(16)
  %j = s32[] constant(0)
  ROOT %part = f32[16,8]{1,0} dynamic-slice(%all, %i, %j), dynamic_slice_sizes={16,8}
}

ENTRY %main (x: f32[64,8]) -> f32[16,8] {
  %x = f32[64,8]{1,0} parameter(0)
  ROOT %f = f32[16,8]{1,0} fusion(%x), kind=kCustom, calls=%both
}
"""
    size = 64 * 8 * 4
    (found,) = hlo.count(text, devices=4).collectives
    assert found == hlo.Collective("reduce-scatter", 4, size, 0.75 * size, 1.0)


def test_a_compiled_program():
    """Seven products in a loop, in the text that this JAX writes."""

    def run(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=7)[0]

    compiled = jax.jit(run).lower(jax.ShapeDtypeStruct((64, 64), jnp.float32)).compile()
    counts = hlo.count(compiled.as_text(), steps=7)
    assert 1 <= counts.kernels < 10
    assert 2 * 64 * 64 * 4 <= counts.bytes < 12 * 64 * 64 * 4
    assert counts.collectives == () and counts.whole == counts.bytes


def test_a_slice_of_what_was_made_wider_reads_narrow_numbers():
    text = """HloModule m

%half (p: bf16[4,8]) -> f32[4,4] {
  %p = bf16[4,8]{1,0} parameter(0)
  %wide = f32[4,8]{1,0} convert(%p)
  ROOT %part = f32[4,4]{1,0} slice(%wide), slice={[0:4], [4:8]}
}

ENTRY %main (x: bf16[4,8]) -> f32[4,4] {
  %x = bf16[4,8]{1,0} parameter(0)
  ROOT %y = f32[4,4]{1,0} fusion(%x), kind=kLoop, calls=%half
}
"""
    assert hlo.count(text).bytes == 16 * 2 + 16 * 4


def test_a_collective_that_goes_on_behind_fusions():
    """It counts once, and what they hand on is not moved by them."""
    text = """HloModule m

%async_collective_fusion.NUMBER (p: f32[8], q: f32[2], r: f32[4,2]) -> (f32[8], f32[2], f32[4,2]) {
  %p = f32[8]{0} parameter(0)
  %q = f32[2]{0} parameter(1)
  %r = f32[4,2]{1,0} parameter(2)
  %all = f32[4,2]{1,0} all-gather(%q), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
  %twice = f32[8]{0} add(%p, %p)
  ROOT %t = (f32[8]{0}, f32[2]{0}, f32[4,2]{1,0}) tuple(%twice, %q, %r)
}
"""
    fusion = (
        "  %fNUMBER = (f32[8]{0}, f32[2]{0}, f32[4,2]{1,0}) fusion(%x, %y, %z), kind=kOutput, "
        "output_to_operand_aliasing={{1}: (1, {}), {2}: (2, {})}, "
        "calls=%async_collective_fusion.NUMBER\n"
    )
    entry = (
        "\nENTRY %main (x: f32[8], y: f32[2], z: f32[4,2]) -> f32[8] {\n"
        "  %x = f32[8]{0} parameter(0)\n  %y = f32[2]{0} parameter(1)\n"
        "  %z = f32[4,2]{1,0} parameter(2)\n"
        + fusion.replace("NUMBER", "1")
        + fusion.replace("NUMBER", "2")
        + "  ROOT %out = f32[8]{0} get-tuple-element(%f2), index=0\n}\n"
    )
    head, computation = text.split("\n\n")
    both = [computation.replace("NUMBER", n) for n in "12"]
    counts = hlo.count("\n\n".join([head, *both]) + entry, devices=4)
    assert counts.collectives == (hlo.Collective("all-gather", 4, 32, 24.0, 1.0),)
    assert counts.bytes == 2 * (32 + 32)
