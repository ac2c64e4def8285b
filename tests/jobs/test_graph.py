"""`job=graph`: the pipeline as a tree and as a diagram."""

from __future__ import annotations

import re


def test_the_graph_is_a_tree_and_a_diagram(call_datamix, tmp_path):
    ended = call_datamix("job=graph", "mix.ratio=7:3", "hydra.run.dir=run")
    assert ended.out.splitlines()[0].startswith("batch")
    head, *lines = (tmp_path / "run" / "graph.mmd").read_text().splitlines()
    assert head == "flowchart LR"
    text = "\n".join(lines)
    nodes = dict(re.findall(r'^ +(n\d+)[\[({]+"(\w+)', text, re.MULTILINE))
    edges = re.findall(r'^ +(n\d+) -->(?:\|"?(.*?)"?\|)? (n\d+)$', text, re.MULTILINE)
    assert len(nodes) + len(edges) == len(lines)
    assert sorted(nodes.values()) == sorted(
        ["mnist", "fashion", *2 * ["to_float", "normalize", "offset_label", "tag_source"], "mix", "batch"]
    )
    after = {start: end for start, _, end in edges}
    for name, share in (("mnist", "70.0 %"), ("fashion", "30.0 %")):
        chain = [next(node for node, kind in nodes.items() if kind == name)]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        expected = [name, "offset_label", "to_float", "normalize", "tag_source", "mix", "batch"]
        assert [nodes[node] for node in chain] == expected
        assert (chain[-3], share, chain[-2]) in edges
