import codecs
import json

import pytest

from grnn_jax.data.file_kinds import check_lines, kind_of
from grnn_jax.data.formats import load_file, load_splits
from grnn_jax.errors import InputError

ORDINARY = {
    "Makefile": "all: a.o\n\tgcc -o a a.o\n\nclean:\n\trm a\n",
    "a.c": "int main()\n{\n\tint x = 1;\n\treturn x > 2;\n}\n",
    "a.py": "def f():\n\treturn {\n\t\t'a': 1,\n\t}\n",
    "a.js": "{\n  var x = 1;\n}\n",
    "a.css": "a {\n\tcolor: red;\n}\n",
    "a.html": "<p>\n\ta > b\n</p>\n",
    "a.tex": "\\begin{document}\n{\\bf hi}\n\\end{document}\n",
    "a.md": "# Title\n> {quoted}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "mail.txt": "> How are you\n> today?\nFine.\n",
    "thread.txt": ">hello\n>you\n",
    "shell.txt": "$ ls > out\n$ echo ${A}\n$ cat a\tb\n",
    "verse.txt": "Roses are red,\nViolets are blue,\nSugar is sweet,\nAnd so are you,\n",
    "clauses.txt": "I came,I saw\nhe went,she ran\nand we,you know\n",
    "people.txt": "Smith, John\nMiller, Ann\nBrown, Bob\n",
    "list.txt": "1.\tapples\n2.\tpears\n3.\tplums\n",
    "play.txt": "ALICE:\tHello\nBOB:\tHi\nALICE:\tBye\n",
    "contents.txt": "Chapter One\t1\nThe second\t12\nThe third one\t33\n",
    "indented.txt": "\tthe first\n\tthe second one\n\tthird\n",
    "sets.txt": "{1, 2}\n{3}\n{4}\n",
    "brackets.txt": "[12]\n[13]\n[1]\n",
    "log.txt": "2021-01-01 a=1, b=2\n2021-01-02 a=3, b=4\n2021-01-03 a=3, b=4\n",
    "faces.txt": ">:(\n>:)\nhello\n",
    "peptides.txt": "ACDKL\nEFG\n",
    "names": "banana\nana\n",
    "plain.smi": "CCO\nc1ccccc1\n",
}

OTHERS = {
    "ids.txt": ("CCO\tZINC1\nCCC\tZINC2\nC\tZINC3\n", "a table, its cells parted by tabs"),
    "people.txt": ("name,age\nbob,3\nann,4\n", "a table, its cells parted by commas"),
    "labels.txt": ("text,label\nhi there,1\nbye now,0\n", "a table, its cells parted by commas"),
    "german.txt": ("a;b;c\n1;2;3\n2;3;4\n", "a table, its cells parted by semicolons"),
    "spam.txt": ("ham\tGo now\nspam\tWin it\nham\tOk lar\nham\tdo it\nham\tok ok\n", "by tabs"),
    "three.txt": ("id\tseq\tname\n1\tACG\tx y\n2\tCC\tz w\n", "parted by tabs"),
    "objects.txt": ('{"a": "x"}\n{"a": "y"}\n', "JSON lines; name it .jsonl .* keys 'a'"),
    "pretty.txt": ('{\n  "a": [\n    1\n  ]\n}\n', "JSON, not lines"),
    "array.txt": ('[["a", 1], ["b", 2]]', "JSON, not lines"),
    "long.txt": ('[{"a": "' + "x" * 100_000, "JSON, not lines"),
    "genes.txt": (">a b\nACGT\nACG\n>c\nAC\n", "FASTA; name it .fasta"),
    "proteins": (">sp|P1|X\nMKV\n", "FASTA; name it .fasta"),
    "a.csv": ("name\nbob\n", "a table; give column=NAME, one of its columns 'name'"),
    "a.tab": ("n m\tage\nbob\t1\n", "a table; give column=NAME, one of its columns 'n m', 'age'"),
    "a.jsonl": ('"x"\n', "JSON lines; give column=KEY"),
    "a.json": ("[]\n", "JSON, not lines"),
    "a.fq": ("@a\nACGT\n+\nIIII\n", "FASTQ; convert it to FASTA"),
    "a.smi": ("CC\nCCO x\n", "SMILES with names; give column=1"),
    "score.txt": ("MThd\0\0", "a MIDI file, which format=pianoroll reads"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_texts_are_lines(name):
    assert len(ORDINARY) >= 20
    check_lines(name, "data", ORDINARY[name])
    check_lines(name, "data", ORDINARY[name].replace("\n", "\r\n"))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_lines_is_refused_in_training_and_in_scoring(tmp_path, name):
    text, message = OTHERS[name]
    path = tmp_path / name
    path.write_text(text)
    message = f"data: .*{name} looks like .*{message}.*; as_is=true takes"
    with pytest.raises(InputError, match=message):
        load_splits(data=str(path), format="lines")
    whole = {"valid_fraction": 0, "test_fraction": 0}
    splits = load_splits(data=str(path), format="lines", options={"as_is": True}, **whole)
    with pytest.raises(InputError, match=message):
        load_file(str(path), "lines", splits.codec)
    corpus = load_file(str(path), "lines", splits.codec, as_is=True)
    assert corpus.num_sequences == len(text.split("\n")) - text.endswith("\n")
    # One stream of text may be of anything.
    load_splits(data=str(path), **whole)


def test_a_table_far_down_a_text_does_not_matter(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("A title\n" + "a\tb\n" * 20)
    assert load_splits(data=str(path), format="lines").train.num_sequences > 1


@pytest.mark.parametrize("codec", ["smiles", "chars"])
def test_a_smiles_ends_at_its_first_blank(tmp_path, codec):
    path = tmp_path / "m.txt"
    path.write_text("CC\nC1CC1 three ring\nC\n")
    if codec == "chars":
        load_splits(data=str(path), format="lines", codec=codec)
        return
    message = r"m.txt, line 2, column 6: a SMILES ends at its first blank, got 'C1CC1 three ring'"
    with pytest.raises(InputError, match=message):
        load_splits(data=str(path), format="lines", codec=codec, options={"as_is": True})


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("format", ["text", "lines"])
def test_other_encodings_without_a_mark(tmp_path, code, format):
    path = tmp_path / "t.txt"
    path.write_bytes(codecs.encode("some words\nand more\n" * 5, code))
    name = code.upper().replace("-LE", "LE").replace("-BE", "BE")
    with pytest.raises(InputError, match=f"like {name} without a mark, .* -f {name}"):
        load_splits(data=str(path), format=format)
    # Bytes are whatever they are, but not where lines are to be found among them.
    load_splits(data=str(path), format="text", codec="bytes")
    assert load_splits(data=str(path), format=format, options={"as_is": True}).train.num_events


@pytest.mark.parametrize("format", ["text", "lines"])
def test_line_ends_of_old_macs(tmp_path, format):
    path = tmp_path / "t.txt"
    path.write_bytes(b"one\rtwo\rthree")
    with pytest.raises(InputError, match="2 carriage returns and no line feed"):
        load_splits(data=str(path), format=format, valid_fraction=0, test_fraction=0)
    settings = {"valid_fraction": 0, "test_fraction": 0, "options": {"as_is": True}}
    assert "\r" in load_splits(data=str(path), format=format, **settings).codec.characters
    path.write_bytes(b"one line\r")  # One line that ends so may be anything.
    load_splits(data=str(path), format=format, valid_fraction=0, test_fraction=0)


def test_kinds_by_name():
    names = ["A.CSV", "a.tsv.gz", "a.b.ndjson", "x/a.faa", "a", "a.txt.gz", ".csv", "csv"]
    kinds = ["csv", "tsv", "jsonl", "fasta", "", "", "", ""]
    assert [kind_of(name) for name in names] == kinds


def test_json_of_one_line_names_its_keys():
    with pytest.raises(InputError, match="one of its keys 'a b', 'c'"):
        check_lines("x", "data", json.dumps({"a b": 1, "c": 2}) + "\n")
