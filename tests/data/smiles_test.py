import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grnn_jax.data import text_codec_base
from grnn_jax.data.smiles import SmilesCodec, split_smiles
from grnn_jax.data.text_codec import build_codec
from grnn_jax.errors import InputError

# Written out by hand from the grammar of SMILES.
MOLECULES = {
    "CC(=O)Oc1ccccc1C(=O)O": list("CC(=O)Oc1ccccc1C(=O)O"),
    "ClCCBr": ["Cl", "C", "C", "Br"],
    "C[C@@H](N)C(=O)[O-]": ["C", "[C@@H]", "(", "N", ")", "C", "(", "=", "O", ")", "[O-]"],
    "[Na+].[Cl-]": ["[Na+]", ".", "[Cl-]"],
    "C%12CC%123": ["C", "%12", "C", "C", "%12", "3"],
    "F/C=C\\F": ["F", "/", "C", "=", "C", "\\", "F"],
    "CB(O)C": ["C", "B", "(", "O", ")", "C"],
    "[13CH3:1]C#N": ["[13CH3:1]", "C", "#", "N"],
}
TEXT = st.text(st.sampled_from("[]%ClBrcn019@+ \nH"), max_size=40)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_symbols(smiles):
    assert split_smiles(smiles) == MOLECULES[smiles]


@settings(max_examples=200, deadline=None)
@given(TEXT, st.booleans())
def test_round_trip(text, end):
    codec = build_codec("smiles", [text], end=end)
    ids = codec.encode(text)
    assert ids.dtype == np.int32 and codec.decode(ids) == text
    assert list(codec.vocabulary) == sorted(set(split_smiles(text)))
    assert codec.size == len(codec.vocabulary) + end


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=5))
def test_a_cut_between_chunks_cuts_no_symbol(chunks):
    whole = "".join(chunks)
    assert build_codec("smiles", chunks) == build_codec("smiles", [whole])
    pieces = text_codec_base.complete_pieces(chunks, SmilesCodec())
    assert [s for piece in pieces for s in split_smiles(piece)] == split_smiles(whole)


def test_an_unknown_symbol_is_located():
    codec = build_codec("smiles", ["ClC[nH]c"])
    with pytest.raises(InputError) as error:
        codec.encode("ClC[nH]Brc", "--prefix")
    assert str(error.value).startswith("--prefix, line 1, column 8: symbol 'Br' is not among the 4")
    with pytest.raises(InputError, match=r"f, line 7, column 3: symbol '\[Xe\]'"):
        codec.encode("Cl[Xe]", "f", line=7)
    codec = build_codec("smiles", ["ClC\n"])
    with pytest.raises(InputError, match=r"f, line 3, column 4: symbol 'N'"):
        codec.encode("C\nClCN", "f", line=2, column=5)


def test_small_letters_are_other_atoms():
    with pytest.raises(InputError, match="cannot lowercase"):
        build_codec("smiles", ["CC"], lowercase=True)
