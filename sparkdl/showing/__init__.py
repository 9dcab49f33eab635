"""What is shown in Zeppelin, in Jupyter and in a terminal. ``sparkdl.zeppelin`` has the functions that users call.

    what is given ─► pieces (Facts, Table, Picture, …) ─► fit (to the place's limit) ─► page | plain ─► display

Pieces are data: what there is to see, and nothing of where. Only ``display`` knows the places.
"""
