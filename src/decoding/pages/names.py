"""Which cells of a notebook a cell depends on, by the names that it reads.

It is told from the source alone, so it errs on the side of too many. Names that a cell imports count
for nothing.
"""

import ast
import symtable
from functools import cache
from typing import NamedTuple

from decoding.measuring.fingerprint import tree_of_cell

CHANGING = frozenset(
    ("add", "append", "clear", "extend", "insert", "pop", "remove", "setdefault", "sort", "update")
)
INNER = "_inner_"  # stands for the variables of comprehensions
FOR_SURE = (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef, ast.For, ast.With)


class Names(NamedTuple):
    """The names of a cell.

    Attributes:
        reads: those that other cells must have given.
        gives: those that it sets, whatever stood there before.
        changes: those that it may set or change.
    """

    reads: frozenset
    gives: frozenset
    changes: frozenset


@cache
def names_in(source):
    """Return the ``Names`` of a cell.

    Raises:
        SyntaxError: it is no Python.
    """
    reads, gives, changes = set(), set(), set()
    for statement in tree_of_cell(source).body:
        table = symtable.symtable(ast.unparse(_spelled_out(statement)), "cell", "exec")
        assigned = {one.get_name() for one in table.get_symbols() if one.is_assigned()} - {INNER}
        assigned |= {one.get_name() for one in table.get_symbols() if one.is_namespace()}
        targets = _targets(statement)
        reads |= _read(table) - gives - targets - {INNER}
        if isinstance(statement, FOR_SURE):
            gives |= targets or assigned
        changes |= assigned | _changed(statement)
    return Names(frozenset(reads), frozenset(gives), frozenset(changes))


def cells_behind(names):
    """Return the positions of the cells that the last one depends on, directly or through others.

    Args:
        names: of code cells, in order; the last may also be of an expression.

    Returns:
        A sorted list.
    """
    last = len(names) - 1
    found, open_ = set(), {last}
    while open_:
        at = open_.pop()
        for name in names[at].reads:
            # What a function reads may be set after the function is.
            new = _setters(names, name, at) or _setters(names, name, last)
            open_ |= new - found - {last}
            found |= new
    return sorted(found - {last})


def _setters(names, name, before):
    """The cells before ``before`` that make ``name`` what it is there."""
    found = set()
    for at in range(before - 1, -1, -1):
        if name in names[at].changes:
            found.add(at)
        if name in names[at].gives:
            break
    return found


def _spelled_out(statement):
    """Return a copy that shows a symbol table what is read.

    ``a += b`` becomes ``a = a + b``, and comprehensions have one variable: since Python 3.12 they are no
    scopes.
    """
    copy = _Sums().visit(ast.parse(ast.unparse(statement)))
    for node in ast.walk(copy):
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            targets = [part for each in node.generators for part in ast.walk(each.target)]
            inner = {part.id for part in targets if isinstance(part, ast.Name)}
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and part.id in inner:
                    part.id = INNER
    return copy


class _Sums(ast.NodeTransformer):
    """Writes ``a = a + b`` for ``a += b``, whatever the operator."""

    def visit_AugAssign(self, node):
        if not isinstance(node.target, ast.Name):
            return node
        before = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], ast.BinOp(before, node.op, node.value), lineno=node.lineno)


def _read(table):
    """The global names that a scope or one inside it reads."""
    top = table.get_type() == "module"
    own = {
        one.get_name()
        for one in table.get_symbols()
        if one.is_referenced() and (top or one.is_global())
    }
    return own.union(*(_read(child) for child in table.get_children()))


def _targets(statement):
    """The names that a loop or a context sets before its body reads them."""
    if isinstance(statement, ast.For):
        parts = [statement.target]
    elif isinstance(statement, ast.With):
        parts = [item.optional_vars for item in statement.items if item.optional_vars]
    else:
        return set()
    nodes = [node for part in parts for node in ast.walk(part)]
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _changed(statement):
    """The names of objects in which a statement sets a part, or that it fills by a method."""
    found = set()
    for node in ast.walk(statement):
        part = node if isinstance(node, ast.Subscript | ast.Attribute) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            part = node.func if node.func.attr in CHANGING else None
        elif part is None or isinstance(part.ctx, ast.Load):
            continue
        while isinstance(part, ast.Subscript | ast.Attribute):
            part = part.value
        if isinstance(part, ast.Name):
            found.add(part.id)
    return found
