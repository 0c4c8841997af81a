"""What a training project imports: libraries by their versions, code of one's own that lies elsewhere by its bytes."""
