"""One decoding loop a module. Neighbours on the ladder differ by one idea: diff them to see it.

A loop waits for the device once a step, in its stop check, and nowhere else; without an end to look
for it never waits. The pipeline of ``two_streams`` waits for an event of the step before instead.
(transformers adds waits of its own for some models: see ``decode_step``.)
"""
