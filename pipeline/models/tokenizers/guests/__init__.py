"""Published tokenizers that are run by the libraries they were published for (`pip install 'vqtok[guests]'`).

library        what their folders say, and how such a library is found
diffusers      VQModel
transformers   ChameleonVQVAE and Emu3VQVAE; JanusVQVAE becomes a folder of kind llamagen
networks       the models of both as networks of tokens
sources        where they are published: a folder, or a repository of the Hugging Face Hub
"""
