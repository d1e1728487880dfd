"""A finding of whose labels the data have none: an error with a remedy, or left out and counted."""

import pandas as pd
import pytest

from dualview.config import DataConfig, load
from dualview.data.load import load_data
from dualview.data.sources.readers import read_source
from dualview.errors import UserError

NIH_ROW = {"Patient ID": 1, "View Position": "PA"}


@pytest.fixture
def part(tmp_path):
    """Twenty images of NIH, none of them with a hernia."""
    rows = [NIH_ROW | {"Image Index": f"{n}.png", "Patient ID": n, "Finding Labels": "Mass" if n % 2 else "No Finding"}
            for n in range(20)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "Data_Entry_2017.csv", index=False)
    return tmp_path


def config(root, **settings):
    values = {"source": "nih", "root": root, "check_files": False, "findings": ["Mass", "Hernia"], **settings}
    return DataConfig.model_validate(values)


def test_the_error_names_a_remedy_that_works(part):
    with pytest.raises(UserError, match=r"names 'Hernia', and no study of nih .* set data.on_missing_finding=drop"):
        load_data(config(part), seed=0)
    data = load_data(config(part, on_missing_finding="drop"), seed=0)
    assert data.train.findings == ("Mass",)
    assert [(remark.count, remark.example) for remark in data.sources[0].remarks] == [(1, "Hernia")]


def test_a_finding_with_one_label_there_is_kept_and_the_others_are_said(part):
    data = config(part, findings={"Lump": ["Mass", "Nodule"], "Gut": ["Hernia"]}, on_missing_finding="drop")
    source = read_source(data, data=data, seed=0)
    assert source.table.findings == ("Lump",)
    assert [(remark.count, remark.example) for remark in source.remarks] == [(1, "Gut"), (1, "Nodule")]


def test_nothing_left_is_an_error_all_the_same(part):
    with pytest.raises(UserError, match=r"no study of nih has a label of any finding in data.findings; there are Mass"):
        load_data(config(part, findings=["Hernia"], on_missing_finding="drop"), seed=0)


def test_with_several_sources_it_is_unknown_where_it_is_missing(part, tmp_path):
    (tmp_path / "other.csv").write_text(
        "patient,study,view,path,Hernia\n" + "".join(f"q{n},s{n},PA,{n}.png,{n % 2}\n" for n in range(20))
    )
    nih = {"source": "nih", "root": part, "check_files": False, "findings": ["Mass", "Hernia"],
           "on_missing_finding": "drop"}  # fmt: skip
    csv = {"source": "csv", "csv": tmp_path / "other.csv", "check_files": False, "findings": ["Hernia"]}
    train = load_data(DataConfig.model_validate({"sources": [nih, csv], "check_files": False}), seed=0).train
    assert train.findings == ("Mass", "Hernia")
    is_nih = train.attributes["source"] == "nih"
    assert train.label_mask[is_nih].tolist() == [[True, False]] * 12
    assert train.label_mask[~is_nih].tolist() == [[False, True]] * 12


def test_a_diagnosis_of_covid_cxr_can_be_dropped_too(tmp_path):
    rows = "".join(f"{n},0,{'COVID-19' if n % 2 else 'SARS'},PA,images,{n}.png,F,60\n" for n in range(20))
    (tmp_path / "metadata.csv").write_text(f"patientid,offset,finding,view,folder,filename,sex,age\n{rows}")
    settings = {"source": "covid_cxr", "findings": {"Covid": ["COVID-19"], "Flu": ["Influenza"]}}
    with pytest.raises(UserError, match=r"names 'Influenza'.*set data.on_missing_finding=drop"):
        load_data(config(tmp_path, **settings), seed=0)
    data = load_data(config(tmp_path, **settings, on_missing_finding="drop"), seed=0)
    assert data.train.findings == ("Covid",)
    assert data.train.labels.mean() == 0.5


def test_sources_with_a_column_per_finding_do_not_use_it(tmp_path):
    (tmp_path / "c.yaml").write_text(
        f"data: {{source: csv, root: {tmp_path}, findings: [A], on_missing_finding: drop}}"
    )
    with pytest.raises(UserError, match="source 'csv' does not use on_missing_finding"):
        load(tmp_path / "c.yaml")
