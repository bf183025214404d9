"""Published training sets and benchmarks, one file each; `index` lists them."""
