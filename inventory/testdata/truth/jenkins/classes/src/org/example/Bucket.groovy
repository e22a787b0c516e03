package org.example

def upload(String file) {
  sh "aws s3 cp ${file} s3://releases/"
}
